/**
 * The ways it goes wrong, in the client.
 *
 *     Error
 *     ├── BadLine          a line that is no frame: broken JSON, broken UTF-8, too long
 *     ├── ConnectionLost   the connection ended before the answer did; resuming may help
 *     └── Refused          the server said no: a code and a sentence for people
 */

/** A line that is no frame. */
export class BadLine extends Error {
  name = 'BadLine'
}

/** The connection failed, or ended before the terminal frame. */
export class ConnectionLost extends Error {
  name = 'ConnectionLost'
}

/** A response was closed so that another request gets its connection; the answer can be resumed soon. */
export class TurnOver extends ConnectionLost {
  name = 'TurnOver'
}

/** The codes of refusals that pass. */
const RETRYABLE = new Set(['too_many', 'too_fast', 'unavailable', 'conflict'])

/** The server refused a request; `message` is its sentence, written for people. */
export class Refused extends Error {
  name = 'Refused'

  /**
   * @param {string} code
   * @param {string} sentence
   * @param {string | null} [traceId]
   * @param {{status?: number, retry_after?: number}} [http] of a refusal over HTTP: its status, and
   *   after how many seconds it may be asked again
   */
  constructor(code, sentence, traceId = null, { status, retry_after } = {}) {
    super(sentence)
    this.code = code
    this.traceId = traceId
    this.status = status ?? null
    this.retry_after = retry_after ?? null
  }

  /** Whether the same request may be granted later. */
  get retryable() {
    return RETRYABLE.has(this.code) || (this.status !== null && this.status >= 500)
  }
}

/**
 * Whether somebody aborted on purpose, which is no error to report.
 *
 * @param {unknown} error
 */
export function isAbort(error) {
  return error instanceof Error && error.name === 'AbortError'
}

/**
 * What to tell people of it.
 *
 * @param {unknown} error
 */
export function sentence(error) {
  const forPeople =
    error instanceof Refused || error instanceof ConnectionLost || error instanceof BadLine
  return forPeople ? error.message : 'Something went wrong in this page.'
}
