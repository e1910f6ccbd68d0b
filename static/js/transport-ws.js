import { call } from './callbacks.js'
import { BadLine, ConnectionLost, Refused } from './errors.js'
import { isTerminal } from './frames.js'
import { parseLines } from './lines.js'
import { deferred } from './reading.js'
import { serverUrl } from './server-url.js'
import { sleep, steady } from './time.js'

/** @typedef {import('./api.js').Ticket} Ticket */
/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./reading.js').StreamListener} StreamListener */
/** @typedef {import('./reading.js').CancelReport} CancelReport */

export const SUBPROTOCOL = 'jarvis-stream.v1'
const TICKET = 'jarvis-stream.ticket.'

/** A proxy may hold a handshake for ever. Milliseconds, as everywhere here. */
const HANDSHAKE_TIMEOUT = 4000

/** How long the server may take to answer a stop; its own bound is 2 s. */
const CANCEL_TIMEOUT = 10_000

/** How long it may take to show any sign of life when it is asked for one. */
const PING_TIMEOUT = 5_000

/** How long before the end of a sign-in it is renewed; of a short one, in the middle of its time. */
const RENEWAL_MARGIN = 30_000

/** Seconds of a sign-in that is too short to be renewed: the next socket gets a new one. */
const SHORTEST_SIGN_IN = 2

/** The longest delay that `setTimeout` accepts. */
const LONGEST_TIMEOUT = 2 ** 31 - 1

/** A stream that shows itself so soon after we began to watch may have been going on for a while. */
const WATCH_REPLAY = 1_000

/**
 * One WebSocket that carries any number of answers.
 *
 * The socket is opened by `connect()` and by whatever needs it, and is opened anew after it died.
 * Stream ids are used here as addresses only: which reader a frame is for.
 *
 * @implements {Transport}
 */
export class WebSocketTransport {
  #url
  #WebSocket
  #getTicket
  #renewTicket
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal
  #onLost
  #handshakeTimeout
  #now
  #pingTimeout
  /** When something came last. */
  #heard = 0
  #checking = false
  #closed = false
  /** @type {WebSocket | null} */
  #socket = null
  /** @type {Promise<WebSocket> | null} */
  #opening = null
  /** @type {Map<string, Route>} */
  #routes = new Map()
  /** @type {Map<string, import('./reading.js').Deferred<CancelReport>>} */
  #cancels = new Map()
  /** @type {Map<string, {onStream: StreamListener, since: number}>} */
  #watches = new Map()

  /**
   * @param {object} [options]
   * @param {string | URL} [options.base] where the server is, as http(s)
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {() => Promise<string | Ticket>} [options.getTicket] the credential of one socket, for a
   *   server with sign-in: a browser sends no headers with a handshake
   * @param {() => Promise<Ticket>} [options.renewTicket] one of the next sign-in. It is called before
   *   the sign-in of an open socket expires
   * @param {() => void} [options.onLost] an open socket died
   * @param {number} [options.handshakeTimeout]
   * @param {number} [options.pingTimeout]
   * @param {() => number} [options.now] milliseconds since the epoch
   */
  constructor({
    base,
    WebSocket = globalThis.WebSocket,
    getTicket,
    renewTicket,
    onLost = () => {},
    handshakeTimeout = HANDSHAKE_TIMEOUT,
    pingTimeout = PING_TIMEOUT,
    now = Date.now,
  } = {}) {
    this.#url = serverUrl('ws', base)
    this.#url.protocol = this.#url.protocol.replace('http', 'ws')
    this.#WebSocket = WebSocket
    this.#getTicket = getTicket
    this.#renewTicket = renewTicket
    this.#onLost = onLost
    this.#handshakeTimeout = handshakeTimeout
    this.#pingTimeout = pingTimeout
    this.#now = steady(now)
  }

  /** Resolves when the socket is open; rejects with `ConnectionLost`. */
  async connect() {
    await this.#open()
  }

  /**
   * @param {StartRequest} request
   * @param {FrameListener} onFrame
   */
  start(request, onFrame) {
    return this.#read({ type: 'start', ...request }, onFrame)
  }

  /**
   * @param {string} streamId
   * @param {number} after
   * @param {FrameListener} onFrame
   */
  resume(streamId, after, onFrame) {
    return this.#read({ type: 'resume', stream_id: streamId, after }, onFrame)
  }

  /**
   * @param {string} streamId
   * @returns {Promise<CancelReport>}
   */
  async cancel(streamId) {
    const socket = await this.#open()
    const asked = this.#cancels.get(streamId)
    if (asked) return asked.promise // one answer is for all who ask
    /** @type {import('./reading.js').Deferred<CancelReport>} */
    const { promise, resolve, reject } = deferred()
    const timer = setTimeout(
      () => reject(new ConnectionLost('The server does not answer the stop.')),
      CANCEL_TIMEOUT,
    )
    const pending = { promise, resolve, reject }
    this.#cancels.set(streamId, pending)
    try {
      send(socket, { type: 'cancel', stream_id: streamId })
      return await promise
    } finally {
      clearTimeout(timer)
      if (this.#cancels.get(streamId) === pending) this.#cancels.delete(streamId)
    }
  }

  /**
   * Watches a session on this socket, and on every one that comes after it.
   *
   * @param {string} sessionId
   * @param {StreamListener} onStream
   */
  watch(sessionId, onStream) {
    this.#watches.set(sessionId, { onStream, since: this.#now() })
    if (this.#socket?.readyState !== 1) return
    call(send, this.#socket, { type: 'watch', session_id: sessionId })
  }

  /** @param {string} sessionId */
  unwatch(sessionId) {
    if (!this.#watches.delete(sessionId) || this.#socket?.readyState !== 1) return
    call(send, this.#socket, { type: 'unwatch', session_id: sessionId })
  }

  /**
   * Makes sure that an open socket is alive: one that slept, or whose network has changed, may be
   * dead without knowing it. Anything that comes is a sign of life; if nothing has come for this
   * long we ask for one (`ping`), and let go of a socket that stays silent.
   *
   * @param {number} silence milliseconds
   */
  async check(silence) {
    const socket = this.#socket
    if (socket?.readyState !== 1 || this.#now() - this.#heard < silence || this.#checking) return
    const asked = this.#now()
    this.#checking = true
    call(send, socket, { type: 'ping' }) // one that cannot be sent is answered by nothing
    await sleep(this.#pingTimeout)
    this.#checking = false
    if (socket === this.#socket && this.#heard < asked) this.#drop(socket)
  }

  close() {
    this.#closed = true
    for (const route of this.#routes.values()) route.settle()
    this.#drop(this.#socket)
  }

  /**
   * @param {StartRequest & {type: 'start'} | {type: 'resume', stream_id: string, after: number}} message
   * @param {FrameListener} onFrame
   * @returns {Reading}
   */
  #read(message, onFrame) {
    const { stream_id: streamId, after = 0 } = message
    /** @type {import('./reading.js').Deferred<void>} */
    const accepted = deferred()
    /** @type {import('./reading.js').Deferred<void>} */
    const closed = deferred()
    /** @type {Route} */
    const route = {
      onFrame,
      first: after + 1,
      answered: false,
      settle: (error) => {
        if (this.#routes.get(streamId) === route) this.#routes.delete(streamId)
        if (error) closed.reject(error)
        else closed.resolve()
        accepted.resolve()
      },
    }
    const opening = this.#open() // first: it fails the routes of a socket that is dying
    this.#routes.set(streamId, route)
    opening.then((socket) => {
      // Left before the socket was open: then there is nothing to ask for.
      if (this.#routes.get(streamId) !== route) return
      send(socket, message)
      accepted.resolve() // one socket keeps the order
    }).catch(route.settle)
    return { accepted: accepted.promise, closed: closed.promise, leave: () => route.settle() }
  }

  /** @returns {Promise<WebSocket>} */
  #open() {
    if (this.#socket?.readyState === 1 /* OPEN */) return Promise.resolve(this.#socket)
    this.#opening ??= this.#handshake().finally(() => {
      this.#opening = null
    })
    return this.#opening
  }

  /** @returns {Promise<WebSocket>} */
  async #handshake() {
    if (!this.#WebSocket) throw new ConnectionLost('There is no WebSocket here.')
    this.#drop(this.#socket)
    const protocols = [SUBPROTOCOL]
    /** @type {Ticket | null} */
    let credential = null
    if (this.#getTicket) {
      const given = await this.#getTicket()
      credential = typeof given === 'string' ? { ticket: given } : given
      protocols.push(TICKET + credential.ticket)
    }
    // It may have been closed before, or while the ticket came.
    if (this.#closed) throw new ConnectionLost('The WebSocket is closed.')
    const socket = this.#create(protocols)
    this.#socket = socket
    /** @type {import('./reading.js').Deferred<WebSocket>} */
    const { promise, resolve, reject } = deferred()
    const timer = setTimeout(() => this.#drop(socket), this.#handshakeTimeout)
    let opened = false
    socket.onopen = () => {
      opened = true
      this.#heard = this.#now()
      for (const [sessionId, watch] of this.#watches) {
        watch.since = this.#heard
        call(send, socket, { type: 'watch', session_id: sessionId })
      }
      this.#renewIn(socket, credential?.sign_in_expires_in)
      resolve(socket)
    }
    socket.onmessage = ({ data }) => this.#receive(socket, data)
    socket.onclose = () => {
      clearTimeout(this.#renewal)
      this.#socket = null
      reject(new ConnectionLost('The WebSocket could not be opened.'))
      if (!opened) return
      this.#failAll(new ConnectionLost('The WebSocket closed.'))
      call(this.#onLost)
    }
    return promise.finally(() => clearTimeout(timer))
  }

  /**
   * Renews the sign-in of an open socket before it expires. Without success in time the server closes
   * the socket, and the next one gets a ticket of its own.
   *
   * @param {WebSocket} socket
   * @param {number | null} [seconds] until it expires; null: never
   */
  #renewIn(socket, seconds) {
    clearTimeout(this.#renewal)
    if (!this.#renewTicket || typeof seconds !== 'number' || seconds < SHORTEST_SIGN_IN) return
    const early = Math.min(RENEWAL_MARGIN, (seconds * 1000) / 2)
    const wait = Math.min(seconds * 1000 - early, LONGEST_TIMEOUT)
    this.#renewal = setTimeout(() => this.#renew(socket, seconds - wait / 1000), wait)
  }

  /**
   * @param {WebSocket} socket
   * @param {number} left seconds until the sign-in expires
   */
  async #renew(socket, left) {
    this.#renewIn(socket, left) // another try, unless this one succeeds
    try {
      const credential = await this.#renewTicket?.()
      if (socket !== this.#socket || socket.readyState !== 1 || !credential) return
      send(socket, { type: 'reauthenticate', ticket: credential.ticket })
    } catch {
      // The next try, or the next socket, reports what lasts.
    }
  }

  /** @param {string[]} protocols */
  #create(protocols) {
    try {
      return new this.#WebSocket(this.#url, protocols)
    } catch (cause) {
      throw new ConnectionLost('The browser allows no WebSocket.', { cause })
    }
  }

  /**
   * A socket that is let go of counts as closed now, not when its closing handshake has ended.
   *
   * @param {WebSocket | null} socket
   */
  #drop(socket) {
    if (!socket) return
    const { onclose } = socket
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close()
    onclose?.call(socket, /** @type {any} */ (null))
  }

  /**
   * @param {WebSocket} socket
   * @param {unknown} data
   */
  #receive(socket, data) {
    this.#heard = this.#now()
    try {
      for (const frame of parseLines(String(data))) this.#route(frame)
    } catch (error) {
      if (!(error instanceof BadLine)) throw error
      // What follows cannot be trusted; a resume on a fresh connection can.
      this.#failAll(error)
      this.#drop(socket)
    }
  }

  /** @param {Frame} frame */
  #route(frame) {
    const route = this.#routes.get(frame.stream_id)
    if (frame.seq === undefined) return this.#reply(frame, route)
    if (!route) {
      const watch = this.#watches.get(frame.session_id ?? '')
      if (watch) call(watch.onStream, frame, this.#now() - watch.since >= WATCH_REPLAY)
      return
    }
    // A watched stream is on this socket already; the answer begins where we asked it to. After a
    // last frame nothing need come any more: what is missing then has to be asked for.
    if (!route.answered && frame.seq !== route.first && !isTerminal(frame)) return
    route.answered = true
    call(route.onFrame, frame)
    if (isTerminal(frame)) route.settle()
  }

  /**
   * @param {Frame} reply
   * @param {Route | undefined} route
   */
  #reply(reply, route) {
    if (reply.status === 'reauthenticated') {
      const { expires_in } = /** @type {{expires_in?: number | null}} */ (reply)
      if (this.#socket) this.#renewIn(this.#socket, expires_in)
      return
    }
    const cancel = this.#cancels.get(reply.stream_id)
    if (reply.type !== 'error') {
      // `cancelled`, or a `pong` for no stream.
      cancel?.resolve(/** @type {CancelReport} */ (/** @type {unknown} */ (reply)))
      return
    }
    const refused = new Refused(
      reply.code ?? 'refused',
      reply.error ?? 'The server refused.',
      reply.trace_id ?? null,
    )
    // Replies come in the order of the commands: the start or resume was the first of the two.
    if (route && !route.answered) route.settle(refused)
    else cancel?.reject(refused)
  }

  /** @param {Error} error */
  #failAll(error) {
    for (const route of [...this.#routes.values()]) route.settle(error)
    for (const cancel of [...this.#cancels.values()]) cancel.reject(error)
  }
}

/**
 * @typedef {object} Route
 * @property {FrameListener} onFrame
 * @property {number} first the seq of the frame that was asked for first
 * @property {boolean} answered it has come: the server knows the stream
 * @property {(error?: unknown) => void} settle ends the reading; only the first call counts
 */

/**
 * @param {WebSocket} socket
 * @param {{type: string, [field: string]: unknown}} message
 */
function send(socket, message) {
  try {
    socket.send(JSON.stringify(message))
  } catch (cause) {
    throw new ConnectionLost('The WebSocket takes no message.', { cause })
  }
}
