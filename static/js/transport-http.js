import { call } from './callbacks.js'
import { ConnectionLost, Refused, TurnOver } from './errors.js'
import { isTerminal } from './frames.js'
import { readFrames } from './lines.js'
import { deferred } from './reading.js'
import { serverUrl } from './server-url.js'
import { steady } from './time.js'

/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./reading.js').CancelReport} CancelReport */

/** The bound of a call that answers at once, in milliseconds (a stop may take the server 2 s). */
const CALL_TIMEOUT = 10_000

/** The bound of a look whether the server is there. */
const PROBE_TIMEOUT = 5_000

/**
 * How long a response is held while the tabs of the browser hold many: then it is closed and the answer
 * resumed, so that every tab gets its turn, and a stop is not kept waiting.
 */
const TURN = 1_000

/** Statuses with which a gateway tells that it cannot reach the server. */
const GATEWAY = new Set([502, 503, 504])

/**
 * Answers as the NDJSON body of an HTTP response.
 *
 * @implements {Transport}
 */
export class HttpTransport {
  #base
  #fetch
  #now
  #responses
  /** @type {Set<Open>} */
  #readings = new Set()

  /**
   * @param {object} [options]
   * @param {string | URL} [options.base]
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {() => number} [options.now] milliseconds since the epoch
   * @param {import('./open-responses.js').OpenResponses} [options.responses] with it, a reading rejects
   *   with `TurnOver` when too many are open
   */
  constructor({ base, fetch = globalThis.fetch, now = Date.now, responses } = {}) {
    this.#base = base
    this.#fetch = fetch.bind(globalThis)
    this.#now = steady(now)
    this.#responses = responses
  }

  /**
   * @param {StartRequest} request
   * @param {FrameListener} onFrame
   */
  start(request, onFrame) {
    return this.#read('api/chat', jsonPost(request), onFrame)
  }

  /**
   * @param {string} streamId
   * @param {number} after
   * @param {FrameListener} onFrame
   */
  resume(streamId, after, onFrame) {
    return this.#read(`api/streams/${streamId}?after=${after}`, {}, onFrame)
  }

  /**
   * @param {string} streamId
   * @returns {Promise<CancelReport>}
   */
  cancel(streamId) {
    return this.call(`api/streams/${streamId}/cancel`, { method: 'POST' })
  }

  /** Whether the server can be reached: rejects with `ConnectionLost` if not. */
  async probe() {
    const response = await this.#request('livez', { signal: AbortSignal.timeout(PROBE_TIMEOUT) })
    // A proxy answers for a server that is not there.
    if (!response.ok) throw new ConnectionLost('The server cannot be reached.')
  }

  /**
   * Gives up answers on which nothing has come for this long, not even a heartbeat: a connection
   * that slept may be dead without knowing it. Their readings reject with `ConnectionLost`.
   *
   * @param {number} silence milliseconds
   */
  dropSilent(silence) {
    const before = this.#now() - silence
    for (const open of this.#readings) if (open.heard <= before) open.drop()
  }

  /**
   * A call whose answer is one JSON value, of a type that the caller knows; null for a 204.
   *
   * @template T
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<T>}
   */
  async call(path, init = {}) {
    const signal = AbortSignal.timeout(CALL_TIMEOUT)
    const response = await this.#request(path, { ...init, signal })
    if (!response.ok) throw await refusal(response)
    return response.status === 204 ? /** @type {any} */ (null) : response.json().catch(lost)
  }

  close() {
    for (const open of this.#readings) open.leave()
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   */
  async #request(path, init) {
    const url = serverUrl(path, this.#base)
    try {
      return await this.#fetch(url, { cache: 'no-store', ...init })
    } catch (cause) {
      return lost(cause) // also what a `fetch` of the page's own throws
    }
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
    /** @type {Open} */
    const open = {
      heard: this.#now(),
      leave: () => controller.abort(),
      drop: () => controller.abort(new ConnectionLost('The connection has gone silent.')),
    }
    const onBytes = () => {
      open.heard = this.#now()
    }
    /** @type {import('./reading.js').Deferred<void>} */
    const accepted = deferred()

    /** @type {ReturnType<typeof setInterval> | undefined} */
    let turn
    const hold = () => {
      const responses = this.#responses
      if (!responses) return
      responses.opened()
      turn = setInterval(() => {
        if (responses.isCrowded) controller.abort(new TurnOver('Another tab has its turn.'))
      }, TURN)
    }

    const pump = async () => {
      const response = await this.#request(path, { ...init, signal })
      if (!response.ok) throw await refusal(response)
      onBytes()
      accepted.resolve()
      hold()
      if (!response.body) throw new ConnectionLost('The response has no body.')
      for await (const frame of readFrames(response.body.getReader(), onBytes)) {
        if (signal.aborted) throw signal.reason
        call(onFrame, frame)
        if (isTerminal(frame)) return
      }
      throw new ConnectionLost('The response ended before the answer did.')
    }

    const closed = pump()
      .catch((error) => {
        if (!signal.aborted) throw error
        if (signal.reason instanceof ConnectionLost) throw signal.reason
      })
      .finally(() => {
        if (turn !== undefined) this.#responses?.closed()
        clearInterval(turn)
        controller.abort() // lets go of a body that nobody reads to its end
        this.#readings.delete(open)
      })
    closed.then(accepted.resolve, () => accepted.resolve())
    this.#readings.add(open)
    return { accepted: accepted.promise, closed, leave: open.leave }
  }
}

/**
 * @typedef {object} Open a response that is being waited for or read
 * @property {number} heard when something came last, in milliseconds
 * @property {() => void} leave
 * @property {() => void} drop
 */

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

/**
 * What a response that is not `ok` means. A gateway that cannot reach the server says so in words of
 * its own: then it is the connection that failed.
 *
 * @param {Response} response
 */
export async function refusal(response) {
  const { status, headers } = response
  const { code, error } = await response.json().catch(() => ({}))
  if (code === undefined && GATEWAY.has(status)) {
    return new ConnectionLost(`The server cannot be reached: a gateway answered ${status}.`)
  }
  const sentence = error ?? `The server answered ${status}.`
  return new Refused(code ?? 'refused', sentence, headers.get('X-Trace-Id'), {
    status,
    retry_after: seconds(headers.get('Retry-After')),
  })
}

/** @param {string | null} text a `Retry-After` header: seconds, or a date, which we do not take */
function seconds(text) {
  return text !== null && /^\d{1,6}$/.test(text) ? Number(text) : undefined
}
