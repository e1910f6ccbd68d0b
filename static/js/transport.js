import { call, callAll } from './callbacks.js'
import { backoff, sleep, steady } from './time.js'
import { BadLine, ConnectionLost, Refused, TurnOver } from './errors.js'
import { OpenResponses } from './open-responses.js'
import { deferred } from './reading.js'
import { serverUrl } from './server-url.js'
import { HttpTransport } from './transport-http.js'
import { WebSocketTransport } from './transport-ws.js'

/** @typedef {import('./api.js').Ticket} Ticket */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').StreamListener} StreamListener */
/** @typedef {import('./reading.js').Reading} Reading */

/**
 * How the server is reached now. `offline`: it has not been for several tries; they go on.
 *
 * @typedef {'connecting' | 'websocket' | 'http' | 'reconnecting' | 'offline'} ConnectionState
 */

/**
 * What a transport that looks after its connection tells, and can be told.
 *
 * @typedef {object} Keeping
 * @property {ConnectionState} state
 * @property {number | null} retry_at when the server is tried again, in ms since the epoch; null:
 *   nothing waits for that
 * @property {(listener: () => void) => () => void} subscribe the listener is called after every
 *   change of these two
 * @property {() => Promise<void>} connect resolves when the server is reached, however long it takes
 * @property {() => void} wake somebody is here again: pauses end now, and connections are checked
 * @property {(silence?: number) => void} check looks whether the server is still there; cheap, and done
 *   now and then
 *
 * @typedef {Transport & Keeping} Connection
 */

/** How long a WebSocket that could not be opened is not tried again, in milliseconds. */
const AVOID_SOCKET = 5 * 60_000

/** The same for one that has worked before: more likely the server was just starting again. */
const AVOID_PROVEN_SOCKET = 5_000

/** Idle sockets that close within this time of each other are not opened again at once, in milliseconds. */
const FREQUENT_LOSS = 5_000

/** Tries in a row that bring no new frame, before an answer or a stop is given up. */
const MAX_TRIES = 8

/**
 * A socket on which nothing came for this long is asked for a sign of life, when somebody comes back
 * to the tab and now and then.
 */
const SOCKET_SILENCE = { woken: 1_000, checked: 15_000 }

/**
 * A response on which nothing came for this long is taken for dead, and its answer resumed. The
 * server sends a heartbeat every 15 s, unless it is set otherwise: then this costs a resume now and
 * then, and nothing else.
 */
const RESPONSE_SILENCE = { woken: 20_000, checked: 45_000 }

/** How long an answer waits, on average, before it takes another turn of a connection, in milliseconds. */
const TURN_PAUSE = 2_000

/** The longest that a server may ask us to wait before the next try. */
const MAX_RETRY_AFTER = 60_000

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
 * - Whatever waits for its next try does not, when somebody is here again (`wake`).
 *
 * @implements {Connection}
 */
export class FallbackTransport {
  #socket
  #http
  #backoff
  #sleep
  #now
  #elapsed
  #avoidSocketUntil = 0
  #socketProven = false
  /** When an idle socket closed last. */
  #lastLoss = -Infinity
  /** @type {Promise<void> | null} */
  #connecting = null
  #closing = new AbortController()
  /** @type {ConnectionState} */
  #state = 'connecting'
  /** @type {Set<number>} when those who pause will try again */
  #tries = new Set()
  /** Aborted when somebody is here again. */
  #waking = new AbortController()
  /** @type {Set<() => void>} */
  #listeners = new Set()

  /**
   * @param {object} [options]
   * @param {string | URL} [options.base] where the server is; default: where the page came from
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {() => Promise<string | Ticket>} [options.getTicket] the credential of a WebSocket
   * @param {() => Promise<Ticket>} [options.renewTicket] one of the next sign-in
   * @param {(tries: number) => number} [options.backoff] how long to wait, in milliseconds, after so
   *   many tries that failed
   * @param {(ms: number, signal: AbortSignal) => Promise<void>} [options.sleep]
   * @param {() => number} [options.now] milliseconds since the epoch
   * @param {import('./open-responses.js').OpenResponses} [options.responses] what the tabs hold open
   * @param {number} [options.pingTimeout] how long an open socket may take to show a sign of life
   */
  constructor({
    base,
    WebSocket,
    fetch,
    getTicket,
    renewTicket,
    backoff: pauseAfter = backoff,
    sleep: rest = sleep,
    now = Date.now,
    pingTimeout,
    responses = new OpenResponses(serverUrl('', base).host),
  } = {}) {
    const onLost = () => this.#lostWhenIdle()
    this.#socket = new WebSocketTransport({
      ...{ base, WebSocket, getTicket, renewTicket },
      ...{ onLost, now, pingTimeout },
    })
    this.#http = new HttpTransport({ base, fetch, now, responses })
    this.#backoff = pauseAfter
    this.#sleep = rest
    this.#now = now
    this.#elapsed = steady(now)
  }

  get state() {
    return this.#state
  }

  /** When the server is tried again, in ms since the epoch; null: nothing waits for that. */
  get retry_at() {
    return this.#tries.size > 0 ? Math.min(...this.#tries) : null
  }

  /**
   * @param {() => void} listener called after every change of `state` or `retry_at`
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
   * Somebody is here again, or the network is: what waits for its next try has it now, and what
   * looks alive has to show it.
   */
  wake() {
    const { woken } = RESPONSE_SILENCE
    this.#waking.abort()
    this.#waking = new AbortController()
    this.#look(SOCKET_SILENCE.woken, woken)
  }

  /**
   * Looks whether the server is still there. Costs an idle client one small request at most; over
   * HTTP it is also when the WebSocket is tried again.
   *
   * @param {number} [silence] a socket on which nothing came for this long has to answer, in ms
   */
  check(silence = SOCKET_SILENCE.checked) {
    this.#look(silence, RESPONSE_SILENCE.checked)
  }

  /**
   * @param {number} socketSilence
   * @param {number} responseSilence
   */
  #look(socketSilence, responseSilence) {
    this.#http.dropSilent(responseSilence)
    if (this.#state === 'websocket') this.#socket.check(socketSilence)
    else this.connect()
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
   * @param {StreamListener} onStream
   */
  watch(sessionId, onStream) {
    this.#socket.watch(sessionId, onStream)
  }

  /** @param {string} sessionId */
  unwatch(sessionId) {
    this.#socket.unwatch(sessionId)
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
    let retryAfter = 0

    /** One connection's worth of reading; whether the answer has come to its end. `again`: to be resumed soon. */
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
        const verdict = call(onFrame, frame) ?? 'next' // a listener that throws has had it
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
      let failed = false
      reading.closed.catch((error) => {
        failed = !(error instanceof Refused) // whoever refuses is there
      })
      reading.accepted.then(() => {
        if (failed) return
        if (transport === this.#http && !overHttp && !signal.aborted) this.#setState('http')
        accepted.resolve()
      })
      try {
        await reading.closed
        if (gap) throw new ConnectionLost('A piece of the answer is missing.')
        return true
      } catch (error) {
        if (signal.aborted) return true
        if (error instanceof TurnOver) return 'again'
        const isReconnect = exists || tries > 0
        if (error instanceof Refused && error.code === 'unavailable' && isReconnect) {
          // A server that is just coming or going; it says when to ask again.
          retryAfter = Math.min((error.retry_after ?? 0) * 1000, MAX_RETRY_AFTER)
        } else if (error instanceof ConnectionLost || error instanceof BadLine) {
          retryAfter = 0
        } else {
          throw error
        }
        tries += 1
        if (silent && !(error instanceof Refused)) this.#useless(transport)
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
      for (let result; (result = await attempt()) !== true; ) {
        if (result === false) await this.#pause(tries, signal, retryAfter)
        else await this.#sleep(TURN_PAUSE * (0.5 + Math.random()), signal)
      }
    }
    const closed = run().finally(accepted.resolve)
    return { accepted: accepted.promise, closed, leave: () => leaving.abort() }
  }

  /**
   * Waits before another try: until its time has come, somebody is here again, or this is given up.
   *
   * @param {number} tries that have failed
   * @param {AbortSignal} signal
   * @param {number} [least] milliseconds
   */
  async #pause(tries, signal, least = 0) {
    const ms = Math.max(least, call(this.#backoff, tries) ?? backoff(tries))
    const at = this.#now() + ms
    this.#tries.add(at)
    this.#tell()
    await this.#sleep(ms, AbortSignal.any([signal, this.#waking.signal]))
    this.#tries.delete(at)
    this.#tell()
  }

  /** The transport to try now; a WebSocket is open when it is chosen. */
  async #choose() {
    if (this.#elapsed() < this.#avoidSocketUntil) return this.#http
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
    this.#avoidSocketUntil = transport === this.#http ? 0 : this.#elapsed() + avoid
  }

  #lostWhenIdle() {
    if (this.#closing.signal.aborted) return
    const now = this.#elapsed()
    // A proxy may open each socket and close it: without a pause, that would repeat for ever.
    if (now - this.#lastLoss < FREQUENT_LOSS) this.#avoidSocketUntil = now + AVOID_PROVEN_SOCKET
    this.#lastLoss = now
    this.#setState('reconnecting')
    this.connect()
  }

  async #reach() {
    const { signal } = this.#closing
    for (let tries = 1; !signal.aborted; tries++) {
      const transport = await this.#choose()
      if (transport === this.#socket || signal.aborted) return
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
    this.#tell()
  }

  #tell() {
    callAll(this.#listeners)
  }
}
