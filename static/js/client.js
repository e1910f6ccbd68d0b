import { getInfo, getSession, requestTicket } from './api.js'
import { call, callAll } from './callbacks.js'
import { Credentials } from './credentials.js'
import { SessionList } from './sessions.js'
import { ChatStore } from './store.js'
import { FallbackTransport } from './transport.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./guard.js').Verdict} Verdict */
/** @typedef {import('./message.js').Message} Message */
/** @typedef {import('./store.js').SendOptions} SendOptions */
/** @typedef {import('./transport.js').Connection} Connection */
/** @typedef {import('./transport.js').ConnectionState} ConnectionState */

/**
 * What there is to show. Frozen, and the same object until something changes.
 *
 * @typedef {object} ClientSnapshot
 * @property {string} session_id of the conversation that is shown
 * @property {readonly Message[]} messages oldest first; an unchanged message is the same object in
 *   the next snapshot
 * @property {boolean} busy an answer is being made, or waits for its turn
 * @property {boolean} stopping a stop is under way
 * @property {boolean} loading the conversation's history is on its way
 * @property {boolean} hasOlder the server has older messages than these: see `loadOlder`
 * @property {boolean} loadingOlder some of them are on their way
 * @property {string | null} error what failed last, besides answers: a sentence for people
 * @property {ConnectionState} connection how the server is reached now
 * @property {number | null} retry_at when it is tried again (ms since the epoch), while it is not
 *   reached and that is known
 */

/**
 * What a client tells of, by name.
 *
 * @typedef {object} ClientEvents
 * @property {{frame: Frame, verdict: Verdict}} frame a frame has come, and what it was
 * @property {{message: Message}} ended an answer has come to its end, however it did
 * @property {{state: ConnectionState}} connection the server is reached in another way, or not
 * @property {{session_id: string}} session another conversation is shown
 * @property {{}} sessions the list of conversations has changed
 */

/**
 * @typedef {object} ClientOptions
 * @property {string | URL} [base] where the server is; default: where the page came from
 * @property {typeof globalThis.WebSocket} [WebSocket]
 * @property {typeof globalThis.fetch} [fetch]
 * @property {string | import('./credentials.js').TokenSource} [token] your token for a server with
 *   sign-in, or a function that returns one or a promise of one: it is called again before the sign-in
 *   expires
 * @property {string} [session_id] the conversation to show first; default: a new one
 * @property {SendOptions['on_conflict']} [on_conflict] what `send` does by default while an answer is
 *   being made
 * @property {Window} [window] whose tab it is: it says when that is looked at again. None in Node
 * @property {Connection} [transport] another way to the server than WebSocket and HTTP
 */

/** How often a tab that is looked at makes sure that the server is still there, in milliseconds. */
const CHECK_INTERVAL = 20_000

/** What a tab hears when somebody comes back to it, or the network does. */
const WAKING = ['focus', 'online', 'pageshow']

/**
 * One server: the conversation that is shown, the list of all of them, and the way to the server.
 *
 *     const client = new ChatClient()
 *     client.subscribe(() => show(client.getSnapshot()))
 *     client.connect()
 *     client.send('Hello')
 *
 * `getSnapshot` and `subscribe` are bound: `useSyncExternalStore(client.subscribe,
 * client.getSnapshot)` takes them as they are.
 */
export class ChatClient {
  #base
  #fetch
  #window
  #onConflict
  #transport
  #store
  #sessions
  /** @type {Readonly<ClientSnapshot> | null} null: it has changed since it was read last */
  #snapshot = null
  /** @type {Set<() => void>} */
  #listeners = new Set()
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #events = new Map()
  /** @type {Record<Exclude<Verdict, 'next'>, number>} of the conversations that were left */
  #dropped = { stale: 0, duplicate: 0, gap: 0, unknown: 0, reply: 0 }
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer
  #started = false
  /** @type {() => void} */
  #unsubscribe

  /** @param {ClientOptions} [options] */
  constructor({
    base,
    WebSocket,
    fetch: plainFetch,
    token,
    session_id,
    on_conflict = 'interrupt',
    window = globalThis.window,
    transport,
  } = {}) {
    const credentials = token === undefined ? null : new Credentials(token, plainFetch)
    const fetch = credentials?.fetch ?? plainFetch
    const getTicket = credentials ? () => requestTicket({ base, fetch }) : undefined
    const renewTicket = credentials?.isRenewable
      ? () => credentials.renew().then(() => requestTicket({ base, fetch }))
      : undefined
    transport ??= new FallbackTransport({ base, WebSocket, fetch, getTicket, renewTicket })
    this.#base = base
    this.#fetch = fetch
    this.#window = window
    this.#onConflict = on_conflict
    this.#transport = transport
    this.#sessions = new SessionList({ base, fetch, onRemoved: (id) => this.#forget(id) })
    this.#sessions.subscribe(() => this.#emit('sessions', {}))
    this.#store = this.#show(session_id)
    let { state } = transport
    this.#unsubscribe = transport.subscribe(() => {
      this.#changed()
      if (transport.state === state) return
      state = transport.state
      this.#emit('connection', { state })
      if (this.#isReached) this.#catchUp()
    })
  }

  getSnapshot = () => {
    this.#snapshot ??= Object.freeze({
      ...this.#store.getSnapshot(),
      connection: this.#transport.state,
      retry_at: this.#transport.retry_at,
    })
    return this.#snapshot
  }

  /**
   * @param {() => void} listener called after every change
   * @returns {() => void} unsubscribe
   */
  subscribe = (listener) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * @template {keyof ClientEvents} K
   * @param {K} event
   * @param {(detail: ClientEvents[K]) => void} listener
   * @returns {() => void} off
   */
  on(event, listener) {
    const listeners = this.#events.get(event) ?? new Set()
    this.#events.set(event, listeners.add(listener))
    return () => listeners.delete(listener)
  }

  /** The list of conversations. It is empty until its `load` is called. */
  get sessions() {
    return this.#sessions
  }

  /** How many frames were dropped, by what they were. */
  get dropped() {
    return added(this.#dropped, this.#store.dropped)
  }

  /**
   * Reaches for the server, and stays in touch until `close`: it is tried again for as long as it
   * takes, looked for again when the tab is, and asked now and then whether it is still there. Called
   * again, it does not wait for the next try but has it now.
   *
   * @returns {Promise<void>} resolves when it is reached
   */
  connect() {
    if (this.#started) {
      this.#transport.wake()
    } else {
      this.#started = true
      for (const event of WAKING) this.#window?.addEventListener(event, this.#wake)
      this.#window?.addEventListener('offline', this.#doubt)
      this.#window?.document?.addEventListener('visibilitychange', this.#wake)
      this.#timer = setInterval(this.#check, CHECK_INTERVAL)
      unref(this.#timer)
    }
    return this.#transport.connect()
  }

  /**
   * Asks, and shows question and answer at once.
   *
   * @param {string} prompt
   * @param {SendOptions} [options]
   * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
   */
  send(prompt, options) {
    return this.#store.send(prompt, { on_conflict: this.#onConflict, ...options })
  }

  /**
   * Stops an answer; what came of it stays.
   *
   * @param {string} [stream_id] default: the one that speaks
   * @returns {Promise<void>} resolves when the server says that it has stopped; never rejects
   */
  stop(stream_id) {
    return this.#store.stop(stream_id)
  }

  /**
   * Asks the same question again, in place of that turn and of all that came after it.
   *
   * @param {string} stream_id
   * @returns {Promise<void>} like `send`
   */
  regenerate(stream_id) {
    return this.#store.regenerate(stream_id)
  }

  /**
   * Asks another question in place of that turn and of all that came after it.
   *
   * @param {string} stream_id
   * @param {string} prompt
   * @returns {Promise<void>} like `send`
   */
  edit(stream_id, prompt) {
    return this.#store.edit(stream_id, prompt)
  }

  /**
   * Tries a turn that failed once more: in its place where the server has kept it, else as if it had
   * not been sent before.
   *
   * @param {string} stream_id
   * @returns {Promise<void>} like `send`
   */
  retry(stream_id) {
    return this.#store.retry(stream_id)
  }

  /**
   * Reads a stream of this conversation that somebody else has started.
   *
   * @param {string} stream_id
   * @param {number} [after] the last frame that is shown already; default: none, all of it is read
   * @returns {Promise<void>} resolves when it has ended, or is read already; never rejects
   */
  resume(stream_id, after = 0) {
    return this.#store.resume(stream_id, after)
  }

  /**
   * From now on shows what others ask, as far as the transport can tell of it. Happens by itself once
   * the server is reached.
   *
   * @param {string} [session_id] another conversation, which is opened; default: the one that is shown
   */
  watch(session_id) {
    if (session_id !== undefined) this.open(session_id)
    this.#store.watch()
  }

  /**
   * Brings in what the server knows of this conversation and we do not. Happens by itself whenever
   * the server is reached again, and over HTTP now and then.
   *
   * @returns {Promise<void>} never rejects: what cannot be had now, comes when it can
   */
  refresh() {
    return this.#store.refresh().catch(() => {})
  }

  /**
   * Brings in the page of messages before the oldest one that is shown, if the server has one.
   *
   * @returns {Promise<void>} resolves when it is there, or could not be had; never rejects
   */
  loadOlder() {
    return this.#store.loadOlder().catch(() => {})
  }

  /**
   * Shows another conversation. Answers of the one that is left go on at the server.
   *
   * @param {string} [session_id] default: a new one, which the server need not be asked about
   * @returns {Promise<void>} resolves when its history is shown, as far as the server can be reached
   */
  async open(session_id) {
    if (session_id !== this.#store.session_id) {
      this.#store.leave()
      this.#dropped = this.dropped
      this.#store = this.#show(session_id)
      this.#changed()
      this.#emit('session', { session_id: this.#store.session_id })
    }
    if (this.#isReached) await this.#catchUp()
  }

  /** Who answers, and within which limits. Rejects with `ConnectionLost` or `Refused`. */
  info() {
    return getInfo({ base: this.#base, fetch: this.#fetch })
  }

  /** Leaves everything; answers go on at the server. */
  close() {
    clearInterval(this.#timer)
    for (const event of WAKING) this.#window?.removeEventListener(event, this.#wake)
    this.#window?.removeEventListener('offline', this.#doubt)
    this.#window?.document?.removeEventListener('visibilitychange', this.#wake)
    call(this.#unsubscribe)
    this.#store.close()
    call(() => this.#transport.close())
    this.#listeners.clear()
    this.#events.clear()
  }

  get #isReached() {
    return this.#transport.state === 'websocket' || this.#transport.state === 'http'
  }

  get #isHidden() {
    return this.#window?.document?.hidden ?? false
  }

  /**
   * A conversation that tells of itself here for as long as it is the one that is shown.
   *
   * @param {string | undefined} session_id
   */
  #show(session_id) {
    const store = new ChatStore({
      transport: this.#transport,
      session_id,
      fetchSession: (id, page) => getSession(id, { base: this.#base, fetch: this.#fetch }, page),
      onFrame: (frame, verdict) => {
        // The server lists the session from the first frame on, however long the agent thinks.
        if (verdict === 'next' && frame.seq === 1) this.#sessions.touch()
        this.#emit('frame', { frame, verdict })
      },
      onBegun: () => this.#sessions.touch(), // its question is kept, if it was not before
      onEnded: (message) => {
        this.#emit('ended', { message })
        this.#sessions.touch()
      },
    })
    store.subscribe(() => this.#changed())
    return store
  }

  /** @param {string} session_id of a conversation that is deleted */
  #forget(session_id) {
    if (session_id === this.#store.session_id) this.open()
  }

  /** The server is within reach, for the first time, again, or in another way. */
  async #catchUp() {
    const store = this.#store
    await store.refresh().catch(() => {}) // first, so that of a long answer only the rest is sent
    if (store !== this.#store) return
    store.watch()
    this.#sessions.touch()
    // What came before we watched.
    if (this.#transport.state === 'websocket' && !store.isMissing) await this.refresh()
  }

  /** Somebody is here again: what was waited for is tried now. */
  #wake = () => {
    if (this.#isHidden) return
    call(() => this.#transport.wake())
    if (this.#transport.state !== 'http') return
    this.refresh() // over HTTP nobody tells us what others have asked
    this.#sessions.touch()
  }

  #check = () => {
    if (this.#isHidden) return
    call(() => this.#transport.check())
    const { isMissing, getSnapshot } = this.#store
    if (this.#transport.state === 'http' && !isMissing && !getSnapshot().busy) this.refresh()
  }

  /** The browser says that it has no network: then no silence is needed to doubt the connection. */
  #doubt = () => this.#transport.check(0)

  #changed() {
    this.#snapshot = null
    callAll(this.#listeners)
  }

  /**
   * @template {keyof ClientEvents} K
   * @param {K} event
   * @param {ClientEvents[K]} detail
   */
  #emit(event, detail) {
    callAll(this.#events.get(event) ?? [], detail)
  }
}

/**
 * @template {Record<string, number>} T
 * @param {T} one
 * @param {T} other
 * @returns {T}
 */
function added(one, other) {
  const sums = Object.entries(one).map(([name, count]) => [name, count + other[name]])
  return Object.fromEntries(sums)
}

/**
 * In Node a timer would keep the process alive.
 *
 * @param {unknown} timer
 */
function unref(timer) {
  /** @type {{unref?: () => void}} */ (timer).unref?.()
}
