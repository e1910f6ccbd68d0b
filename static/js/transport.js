import { backoff, sleep } from './time.js'
import { BadLine, ConnectionLost } from './errors.js'
import { deferred } from './reading.js'
import { HttpTransport } from './transport-http.js'
import { WebSocketTransport } from './transport-ws.js'

/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').Reading} Reading */

/**
 * How the server is reached now. `offline`: it has not been for several tries; they go on.
 *
 * @typedef {'connecting' | 'websocket' | 'http' | 'reconnecting' | 'offline'} ConnectionState
 */

/** How long a WebSocket that could not be opened is not tried again, in milliseconds. */
const AVOID_SOCKET = 5 * 60_000

/** The same for one that has worked before: more likely the server was just starting again. */
const AVOID_PROVEN_SOCKET = 5_000

/** Tries in a row that bring no new frame, before an answer or a stop is given up. */
const MAX_TRIES = 8

/** Failed tries in a row after which the state is called `offline`. */
const OFFLINE_AFTER = 4

/**
 * WebSocket first, HTTP as soon as that fails, and answers that survive their connection.
 *
 * - The first handshake that fails falls back to HTTP at once; the WebSocket is then left alone for
 *   a while, unless HTTP fails too (then it was the server, not the WebSocket).
 * - A connection that dies in mid-answer is resumed from the last frame that was `next`, on
 *   whichever transport works, with full-jitter backoff.
 * - A gap is resumed over HTTP: on a connection of its own nothing left on the socket mixes in.
 * - An idle client reconnects by itself.
 *
 * @implements {Transport}
 */
export class FallbackTransport {
  #socket
  #http
  #pause
  #now
  #avoidSocketUntil = 0
  #socketProven = false
  /** @type {Promise<void> | null} */
  #connecting = null
  #closing = new AbortController()
  /** @type {ConnectionState} */
  #state = 'connecting'
  /** @type {Set<() => void>} */
  #listeners = new Set()

  /**
   * @param {object} [options]
   * @param {string | URL} [options.base] where the server is; default: where the page came from
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {(tries: number, signal: AbortSignal) => Promise<void>} [options.pause] before a try
   * @param {() => number} [options.now] milliseconds
   */
  constructor({
    base,
    WebSocket,
    fetch,
    pause = (tries, signal) => sleep(backoff(tries), signal),
    now = Date.now,
  } = {}) {
    this.#socket = new WebSocketTransport({ base, WebSocket, onLost: () => this.#lostWhenIdle() })
    this.#http = new HttpTransport({ base, fetch })
    this.#pause = pause
    this.#now = now
  }

  get state() {
    return this.#state
  }

  /**
   * @param {() => void} listener called after every change of `state`
   * @returns {() => void} unsubscribe
   */
  subscribe(listener) {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Resolves when the server is reachable, however long that takes, or this is closed. */
  connect() {
    this.#connecting ??= this.#reach().finally(() => {
      this.#connecting = null
    })
    return this.#connecting
  }

  /**
   * @param {StartRequest} request
   * @param {FrameListener} onFrame
   */
  start(request, onFrame) {
    return this.#read(request.stream_id, request.after ?? 0, onFrame, request)
  }

  /**
   * @param {string} streamId
   * @param {number} after
   * @param {FrameListener} onFrame
   */
  resume(streamId, after, onFrame) {
    return this.#read(streamId, after, onFrame, null)
  }

  /** @param {string} streamId */
  async cancel(streamId) {
    for (let tries = 1; ; tries++) {
      const transport = await this.#choose()
      try {
        return await transport.cancel(streamId)
      } catch (error) {
        if (!(error instanceof ConnectionLost) || tries >= MAX_TRIES) throw error
        this.#useless(transport)
      }
      await this.#pause(tries, this.#closing.signal)
    }
  }

  /**
   * Over the WebSocket only: who has none is told of nothing.
   *
   * @param {string} sessionId
   * @param {(first: import('./frames.js').Frame) => void} onStream
   */
  watch(sessionId, onStream) {
    this.#socket.watch(sessionId, onStream)
  }

  close() {
    this.#closing.abort()
    this.#socket.close()
    this.#http.close()
  }

  /**
   * @param {string} streamId
   * @param {number} after
   * @param {FrameListener} onFrame
   * @param {StartRequest | null} request null: the stream exists, only resume it
   * @returns {Reading}
   */
  #read(streamId, after, onFrame, request) {
    /** @type {import('./reading.js').Deferred<void>} */
    const accepted = deferred()
    const leaving = new AbortController()
    const signal = AbortSignal.any([leaving.signal, this.#closing.signal])

    let cursor = after
    let exists = request === null
    let tries = 0
    let overHttp = false

    /** One connection's worth of reading; whether the answer has come to its end. */
    const attempt = async () => {
      const transport = overHttp ? this.#http : await this.#choose()
      if (signal.aborted) return true
      let gap = false
      let silent = true
      /** @type {FrameListener} */
      const listen = (frame) => {
        exists = true
        silent = false
        if (transport === this.#socket) this.#socketProven = true
        const verdict = onFrame(frame)
        if (verdict === 'next' && frame.seq) {
          cursor = frame.seq
          tries = 0
        } else if (verdict === 'gap') {
          gap = overHttp = true
          reading.leave()
        }
        return verdict
      }
      // The same stream id never starts a second answer; but once the server has shown that it
      // knows the stream, only a resume is right: a server that lost it must say so.
      const reading =
        request && !exists
          ? transport.start({ ...request, after: cursor }, listen)
          : transport.resume(streamId, cursor, listen)
      const leave = () => reading.leave()
      signal.addEventListener('abort', leave)
      reading.accepted.then(() => {
        if (transport === this.#http && !overHttp && !signal.aborted) this.#setState('http')
        accepted.resolve()
      })
      try {
        await reading.closed
        if (gap) throw new ConnectionLost('A piece of the answer is missing.')
        return true
      } catch (error) {
        if (!(error instanceof ConnectionLost || error instanceof BadLine)) throw error
        if (signal.aborted) return true
        tries += 1
        if (silent) this.#useless(transport)
        if (!gap) this.#setState(tries > OFFLINE_AFTER ? 'offline' : 'reconnecting')
        if (tries >= MAX_TRIES) {
          this.connect() // this answer is given up, the server is not
          throw error
        }
        return false
      } finally {
        signal.removeEventListener('abort', leave)
      }
    }

    const run = async () => {
      while (!(await attempt())) await this.#pause(tries, signal)
    }
    const closed = run().finally(accepted.resolve)
    return { accepted: accepted.promise, closed, leave: () => leaving.abort() }
  }

  /** The transport to try now; a WebSocket is open when it is chosen. */
  async #choose() {
    if (this.#now() < this.#avoidSocketUntil) return this.#http
    try {
      await this.#socket.connect()
    } catch {
      this.#useless(this.#socket)
      return this.#http
    }
    this.#setState('websocket')
    return this.#socket
  }

  /**
   * A try brought nothing at all: the other way is worth more next time.
   *
   * @param {Transport} transport
   */
  #useless(transport) {
    const avoid = this.#socketProven ? AVOID_PROVEN_SOCKET : AVOID_SOCKET
    this.#avoidSocketUntil = transport === this.#http ? 0 : this.#now() + avoid
  }

  #lostWhenIdle() {
    if (this.#closing.signal.aborted) return
    this.#setState('reconnecting')
    this.connect()
  }

  async #reach() {
    const { signal } = this.#closing
    for (let tries = 1; !signal.aborted; tries++) {
      const transport = await this.#choose()
      if (transport === this.#socket) return
      try {
        await this.#http.probe()
        return this.#setState('http')
      } catch {
        this.#useless(this.#http)
        this.#setState(tries > OFFLINE_AFTER ? 'offline' : 'reconnecting')
      }
      await this.#pause(tries, signal)
    }
  }

  /** @param {ConnectionState} state */
  #setState(state) {
    if (state === this.#state) return
    this.#state = state
    for (const listener of [...this.#listeners]) listener()
  }
}
