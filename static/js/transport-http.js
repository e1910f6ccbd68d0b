import { ConnectionLost, Refused } from './errors.js'
import { isTerminal } from './frames.js'
import { readFrames } from './lines.js'
import { deferred } from './reading.js'

/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./reading.js').CancelReport} CancelReport */

/** The bound of a call that answers at once, in milliseconds (a stop may take the server 2 s). */
const CALL_TIMEOUT = 10_000

/**
 * Answers as the NDJSON body of an HTTP response.
 *
 * @implements {Transport}
 */
export class HttpTransport {
  #base
  #fetch
  /** @type {Set<Reading>} */
  #readings = new Set()

  /** @param {{base?: string | URL, fetch?: typeof globalThis.fetch}} [options] */
  constructor({ base = globalThis.location?.href, fetch = globalThis.fetch } = {}) {
    this.#base = base
    this.#fetch = fetch.bind(globalThis)
  }

  /**
   * @param {StartRequest} request
   * @param {FrameListener} onFrame
   */
  start(request, onFrame) {
    return this.#read('/api/chat', jsonPost(request), onFrame)
  }

  /**
   * @param {string} streamId
   * @param {number} after
   * @param {FrameListener} onFrame
   */
  resume(streamId, after, onFrame) {
    return this.#read(`/api/streams/${streamId}?after=${after}`, {}, onFrame)
  }

  /**
   * @param {string} streamId
   * @returns {Promise<CancelReport>}
   */
  cancel(streamId) {
    return this.call(`/api/streams/${streamId}/cancel`, { method: 'POST' })
  }

  /** Whether the server can be reached: rejects with `ConnectionLost` if not. */
  async probe() {
    await this.#request('/livez', { signal: AbortSignal.timeout(CALL_TIMEOUT) })
  }

  /**
   * A call whose answer is one JSON value.
   *
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<any>}
   */
  async call(path, init = {}) {
    const signal = AbortSignal.timeout(CALL_TIMEOUT)
    const response = await this.#request(path, { ...init, signal })
    if (!response.ok) throw await refusal(response)
    return response.json().catch(lost)
  }

  close() {
    for (const reading of this.#readings) reading.leave()
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   */
  async #request(path, init) {
    return this.#fetch(new URL(path, this.#base), { cache: 'no-store', ...init }).catch(lost)
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   * @param {FrameListener} onFrame
   * @returns {Reading}
   */
  #read(path, init, onFrame) {
    const controller = new AbortController()
    const { signal } = controller
    /** @type {import('./reading.js').Deferred<void>} */
    const accepted = deferred()

    const pump = async () => {
      const response = await this.#request(path, { ...init, signal })
      if (!response.ok) throw await refusal(response)
      accepted.resolve()
      if (!response.body) throw new ConnectionLost('The response has no body.')
      for await (const frame of readFrames(response.body.getReader())) {
        if (signal.aborted) return
        onFrame(frame)
        if (isTerminal(frame)) return
      }
      throw new ConnectionLost('The response ended before the answer did.')
    }

    const closed = pump()
      .catch((error) => {
        if (!signal.aborted) throw error
      })
      .finally(() => {
        controller.abort() // lets go of a body that nobody reads to its end
        accepted.resolve()
        this.#readings.delete(reading)
      })
    const reading = { accepted: accepted.promise, closed, leave: () => controller.abort() }
    this.#readings.add(reading)
    return reading
  }
}

/** @param {unknown} body */
function jsonPost(body) {
  return {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  }
}

/**
 * A fetch that fails does so with a TypeError, or with what its signal was aborted with.
 *
 * @param {unknown} cause
 * @returns {never}
 */
function lost(cause) {
  throw new ConnectionLost('The server cannot be reached.', { cause })
}

/** @param {Response} response */
async function refusal(response) {
  const { code = 'refused', error = `The server answered ${response.status}.` } =
    await response.json().catch(() => ({}))
  return new Refused(code, error, response.headers.get('X-Trace-Id'))
}
