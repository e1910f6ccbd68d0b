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

/** The server refused a request; `message` is its sentence, written for people. */
export class Refused extends Error {
  name = 'Refused'

  /**
   * @param {string} code
   * @param {string} sentence
   * @param {string | null} [traceId]
   */
  constructor(code, sentence, traceId = null) {
    super(sentence)
    this.code = code
    this.traceId = traceId
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
