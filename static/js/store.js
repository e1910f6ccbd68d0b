import { getSession } from './api.js'
import { call, callAll } from './callbacks.js'
import { Refused, isAbort, sentence } from './errors.js'
import { giveUp, judge, nowhere, precedes, read, take } from './guard.js'
import { newId } from './ids.js'
import { Live } from './live.js'
import { changeBy, fromStored, messageError, newMessage, reconciled } from './message.js'
import { waitAtMost } from './time.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./guard.js').Verdict} Verdict */
/** @typedef {import('./message.js').Message} Message */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./api.js').StoredSession} StoredSession */
/** @typedef {import('./api.js').StoredMessage} StoredMessage */
/** @typedef {import('./api.js').PageOptions} PageOptions */

/**
 * @typedef {object} Snapshot
 * @property {string} session_id
 * @property {readonly Message[]} messages oldest first
 * @property {boolean} busy an answer is being made, or waits for its turn
 * @property {boolean} stopping a stop of the one that speaks is under way
 * @property {boolean} loading what the server knows of this conversation is on its way
 * @property {boolean} hasOlder the server has older messages than these: see `loadOlder`
 * @property {boolean} loadingOlder some of them are on their way
 * @property {string | null} error what failed last, besides answers: a sentence for people
 */

/**
 * @typedef {object} SendOptions
 * @property {'interrupt' | 'enqueue' | 'reject'} [on_conflict] `interrupt`: answers still being made
 *   are replaced, and from this call on their text does not change any more. `enqueue`: this one
 *   waits for its turn. `reject`: it fails while another is being made
 * @property {string} [replaces] the `stream_id` of a turn that it takes the place of, and of all
 *   that came after that. They come back when the server refuses. It always interrupts
 */

/**
 * A question and its answer.
 *
 * @typedef {object} Turn
 * @property {string} stream_id
 * @property {Message | null} question null: asked elsewhere, and not fetched yet
 * @property {Message} answer
 * @property {boolean} lost its ending is our guess, for we could not read on; the server may know
 *   better
 * @property {boolean} kept the server's history has it: should it be missing there, it was taken out
 * @property {string | undefined} replaces the turn that it was to take the place of
 * @property {number | null} epoch null: not known yet
 * @property {readonly Turn[]} removed what it has taken the place of here, until the server says
 *   whether it does there
 */

/** How long the terminal frame may come after the server has said that it stopped. Milliseconds. */
const LAST_FRAME_TIMEOUT = 2000

/**
 * How long a start waits for the one before it to arrive: the server's cancel bound and a second.
 */
const ORDER_TIMEOUT = 3000

/**
 * One conversation: its messages, and the answers being made.
 *
 * After every change there is a new, frozen snapshot; an unchanged message is the same object in
 * it. The snapshot is put together when it is read: a piece of an answer costs nothing for all the
 * messages that it does not change.
 */
export class ChatStore {
  #transport
  #fetchSession
  #lastFrameTimeout
  #now
  #onFrame
  #onBegun
  #onEnded
  #known
  #loading
  /** @type {string | null} */
  #error = null
  /** @type {Readonly<Snapshot> | null} null: something has changed since it was read last */
  #snapshot = null
  /** @type {readonly Message[] | null} the same for the messages in it */
  #messages = null
  /** @type {Set<() => void>} */
  #listeners = new Set()
  #view = nowhere()
  /** @type {Map<string, Turn>} by stream_id, oldest first */
  #turns = new Map()
  /** @type {Set<string>} turns that the server has no more */
  #gone = new Set()
  /** @type {Map<string, Live>} the answers being made, by stream_id: the one that speaks is first */
  #lives = new Map()
  /** @type {Set<string>} those, and the ones that are settled but still on their way to the server */
  #followed = new Set()
  /** @type {Promise<unknown>} */
  #order = Promise.resolve()
  /** @type {Promise<void> | null} */
  #refreshing = null
  #outdated = false
  /**
   * The epoch of the oldest turn that was fetched, if the server has older ones, else null.
   *
   * @type {number | null}
   */
  #older = null
  #hasPage = false
  /** @type {Promise<void> | null} */
  #loadingOlder = null
  #isChanging = false
  #isMissing = false
  #closed = false
  /** How many frames were dropped, by what they were. */
  #dropped = { stale: 0, duplicate: 0, gap: 0, unknown: 0, reply: 0 }

  /**
   * @param {object} options
   * @param {Transport} options.transport
   * @param {string} [options.session_id] default: a new one
   * @param {boolean} [options.known] the server may know the session, so that to ask for it makes
   *   sense; default: it was given
   * @param {(sessionId: string, page?: PageOptions) => Promise<StoredSession>} [options.fetchSession]
   * @param {number} [options.lastFrameTimeout]
   * @param {() => number} [options.now] milliseconds since the epoch
   * @param {(frame: Frame, verdict: Verdict) => void} [options.onFrame] a frame has come
   * @param {(message: Message) => void} [options.onBegun] an answer has begun to speak
   * @param {(message: Message) => void} [options.onEnded] an answer has come to its end
   */
  constructor({
    transport,
    session_id,
    known = session_id !== undefined,
    fetchSession = (sessionId, page) => getSession(sessionId, {}, page),
    lastFrameTimeout = LAST_FRAME_TIMEOUT,
    now = Date.now,
    onFrame = () => {},
    onBegun = () => {},
    onEnded = () => {},
  }) {
    this.session_id = session_id ?? newId()
    this.#transport = transport
    this.#fetchSession = fetchSession
    this.#lastFrameTimeout = lastFrameTimeout
    this.#now = now
    this.#onFrame = onFrame
    this.#onBegun = onBegun
    this.#onEnded = onEnded
    this.#known = known
    this.#loading = known
  }

  getSnapshot = () => {
    this.#messages ??= Object.freeze(
      [...this.#turns.values()].flatMap(({ question, answer }) =>
        question ? [question, answer] : [answer],
      ),
    )
    this.#snapshot ??= Object.freeze({
      session_id: this.session_id,
      messages: this.#messages,
      busy: this.#lives.size > 0,
      stopping: this.#first?.stopping ?? false,
      loading: this.#loading,
      hasOlder: this.#older !== null,
      loadingOlder: this.#loadingOlder !== null,
      error: this.#error,
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

  get dropped() {
    return { ...this.#dropped }
  }

  /** Whether the server, when it was asked last, knew nothing of this session, and nothing has begun. */
  get isMissing() {
    return this.#isMissing
  }

  /**
   * Asks, and shows question and answer at once.
   *
   * @param {string} prompt
   * @param {SendOptions} [options]
   * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
   */
  send(prompt, options) {
    return this.#atOnce(() => this.#ask(newId(), prompt, options))
  }

  /**
   * Asks the same question again, in place of that turn and of all that came after it.
   *
   * @param {string} stream_id
   * @returns {Promise<void>} like `send`
   */
  async regenerate(stream_id) {
    if (!this.#turns.get(stream_id)?.question) await this.refresh().catch(() => {})
    const question = this.#turns.get(stream_id)?.question
    if (question) await this.#askAgain(stream_id, question.content)
  }

  /**
   * Asks another question in place of that turn and of all that came after it.
   *
   * @param {string} stream_id
   * @param {string} prompt
   * @returns {Promise<void>} like `send`
   */
  async edit(stream_id, prompt) {
    await this.#askAgain(stream_id, prompt)
  }

  /**
   * Tries a turn that failed once more: in its place where the server has kept it, else as if it had
   * not been sent before.
   *
   * @param {string} stream_id
   * @returns {Promise<void>} like `send`
   */
  async retry(stream_id) {
    const turn = this.#turns.get(stream_id)
    const isUnsure = turn?.answer.error?.code === 'connection_lost' && !this.#isKept(turn)
    if (!isUnsure || !turn?.question) return this.regenerate(stream_id)
    // Should the server have it after all, the same id finds it, and is not answered twice.
    const { question, replaces } = turn
    await this.#atOnce(() => {
      this.#turns.delete(stream_id)
      return this.#ask(stream_id, question.content, { replaces })
    })
  }

  /**
   * Stops an answer being made; what came of it stays.
   *
   * @param {string} [stream_id] default: the one that speaks
   * @returns {Promise<void>} resolves when the server says that it has stopped, or when there is
   *   nothing to stop; if the server cannot be told, `error` says so and the answer goes on
   */
  async stop(stream_id = this.#first?.stream_id) {
    const live = this.#lives.get(stream_id ?? '')
    if (!live) return
    live.stopping = true
    this.#changed()
    try {
      await this.#cancel(live.stream_id)
    } catch (error) {
      // The server does not know it: not yet (then it will end it on arrival), or not any more.
      if (!(error instanceof Refused && error.code === 'not_found')) {
        live.stopping = false
        this.#error = `Could not stop: ${sentence(error)}`
        this.#changed()
        return
      }
    }
    // The terminal frame may come on another connection than the reply.
    await waitAtMost(live.ended, this.#lastFrameTimeout)
    if (this.#lives.get(live.stream_id) !== live) return
    // It has not come: how the answer ended, and what of it we have not seen, the server knows.
    this.#settle(live, { status: 'stopped' }, true)
    this.refresh().catch(() => {})
  }

  /**
   * Reads a stream of this session, whoever started it.
   *
   * @param {string} stream_id
   * @param {number} [after] the last frame that is shown already; 0: what is shown is read anew
   * @returns {Promise<void>} resolves when it has ended, or is over already; never rejects
   */
  async resume(stream_id, after = 0) {
    const turn = this.#turns.get(stream_id)
    const live = this.#lives.get(stream_id)
    if (live) return live.ended
    if (this.#closed || this.#gone.has(stream_id) || (turn && !turn.lost)) return
    if (!turn) this.#turns.set(stream_id, newTurn(stream_id))
    await this.#resume(stream_id, after, after > 0)
  }

  /** From now on shows what others ask in this session, as far as the transport can tell of it. */
  watch() {
    if (this.#closed) return
    call(() =>
      this.#transport.watch?.(this.session_id, (first, isNew) => {
        this.#atOnce(() => this.#meet(first, isNew))
      }),
    )
  }

  /**
   * Brings in what the server knows of this session and we do not: what was asked elsewhere, how
   * answers ended that we lost sight of, and what others have taken the place of. What is being read
   * is not touched, nor what the server does not have yet.
   *
   * @returns {Promise<void>} rejects with `ConnectionLost` or `Refused`
   */
  async refresh() {
    if (!this.#known || this.#closed) return
    this.#outdated = true
    this.#refreshing ??= this.#bringUpToDate()
    return this.#refreshing
  }

  /**
   * Brings in the page of messages before the oldest one that is shown. Called again while one is on
   * its way, it waits for that one.
   *
   * @returns {Promise<void>} rejects with `ConnectionLost` or `Refused`
   */
  async loadOlder() {
    if (this.#closed || this.#older === null) return
    if (!this.#loadingOlder) {
      this.#loadingOlder = this.#fetchOlder(this.#older).finally(() => {
        this.#loadingOlder = null
        this.#changed()
      })
      this.#changed()
    }
    return this.#loadingOlder
  }

  /** @param {number} before */
  async #fetchOlder(before) {
    const session = await this.#fetchSession(this.session_id, { before })
    // What is shown may have changed in between: then this page does not join it.
    if (this.#closed || this.#older !== before) return
    this.#atOnce(() => this.#prepend(session))
  }

  /** @param {StoredSession} session */
  #prepend({ messages, next = null }) {
    const stored = turnsOf(messages)
    for (const id of [...this.#outOfSight(), ...this.#turns.keys()]) stored.delete(id)
    /** @type {Map<string, Turn>} */
    const turns = new Map()
    /** @type {string[]} */
    const open = []
    for (const [stream_id, kept] of stored) {
      const isOpen = kept.status === 'streaming'
      const { question, epoch } = kept
      // One that still grows is read from its beginning.
      const answer = isOpen
        ? Object.freeze({ ...kept.answer, status: /** @type {const} */ ('thinking'), content: '' })
        : kept.answer
      turns.set(stream_id, { ...newTurn(stream_id), question, answer, epoch, kept: true })
      if (isOpen) open.push(stream_id)
    }
    this.#turns = new Map([...turns, ...this.#turns])
    this.#older = next
    this.#changed(true)
    for (const stream_id of open) this.#resume(stream_id, 0, false)
  }

  async #bringUpToDate() {
    try {
      while (this.#outdated && !this.#closed) {
        this.#outdated = false
        const kept = [...this.#turns.values()].filter((turn) => turn.kept)
        try {
          const session = await this.#fetchSession(this.session_id)
          const ids = new Set(kept.map(({ stream_id }) => stream_id))
          if (!this.#closed) this.#atOnce(() => this.#merge(session, ids))
        } catch (error) {
          this.#missed(error)
          if (!this.#outdated) throw error // else somebody has asked since
        }
      }
    } finally {
      this.#refreshing = null
    }
  }

  /** @param {unknown} error why the history could not be had */
  #missed(error) {
    if (!(error instanceof Refused)) return // it comes when the server is back
    this.#isMissing = error.code === 'not_found'
    if (!this.#loading) return
    this.#loading = false
    if (!this.#isMissing) this.#error = `Could not open it: ${sentence(error)}`
    this.#changed()
  }

  /**
   * Takes over a conversation as the server keeps it, and follows the answers in it that are still
   * being made.
   *
   * @param {StoredSession} session
   */
  load(session) {
    this.#atOnce(() => this.#merge(session, new Set()))
  }

  /**
   * @param {StoredSession} session
   * @param {ReadonlySet<string>} kept turns that the server had before it was asked: those it does
   *   not tell of have been taken out
   */
  #merge({ messages, active_stream, next = null }, kept) {
    const stored = turnsOf(messages)
    const oldest = this.#joinPage(stored, next)
    for (const turn of [...this.#turns.values()]) {
      if (stored.has(turn.stream_id)) {
        const gone = removedBy(turn).filter(({ stream_id }) => !stored.has(stream_id))
        for (const { stream_id } of gone) this.#gone.add(stream_id)
        turn.removed = []
      } else if (!this.#followed.has(turn.stream_id) && !isBefore(turn, oldest)) {
        this.#bringBack(turn)
      }
    }
    for (const id of this.#outOfSight()) stored.delete(id)
    /** @type {{stream_id: string, seq: number}[]} */
    const open = []
    /** @type {Map<string, Turn>} */
    const turns = new Map()
    for (const stream_id of this.#ordered(stored, kept, oldest)) {
      const known = this.#turns.get(stream_id)
      const kept = stored.get(stream_id)
      if (!kept) {
        turns.set(stream_id, /** @type {Turn} */ (known))
        continue
      }
      const turn = known ?? newTurn(stream_id)
      turns.set(stream_id, turn)
      turn.question ??= kept.question
      turn.kept = true
      turn.epoch = kept.epoch ?? turn.epoch
      const isActive = active_stream?.stream_id === stream_id
      const isOpen = kept.status === 'streaming' && (isActive || !known)
      if (known && (this.#lives.has(stream_id) || !known.lost)) {
        if (turn.answer.created_at === null) {
          turn.answer = Object.freeze({ ...turn.answer, created_at: kept.answer.created_at })
        }
        continue
      }
      // That it has ended is not written there yet.
      if (known?.answer.status === 'replaced' && kept.status === 'streaming' && !isOpen) continue
      // Told where the active one stands we go on from there; another is read from its beginning.
      if (isOpen) open.push({ stream_id, seq: isActive ? active_stream.seq : 0 })
      const content = isOpen && !isActive ? '' : kept.answer.content
      const status = !isOpen ? kept.answer.status : content ? 'streaming' : 'thinking'
      const answer = Object.freeze({ ...kept.answer, status, content })
      turn.answer = !known || isOpen ? answer : reconciled(known.answer, answer)
    }
    this.#turns = turns
    this.#isMissing = false
    this.#loading = false
    this.#changed(true)
    for (const { stream_id, seq } of open) this.#resume(stream_id, seq, seq > 0)
  }

  /**
   * Joins the newest page to what was fetched before. If there may be turns in between that were
   * never fetched, those before it are left out until they are loaded again.
   *
   * @param {Map<string, StoredTurn>} stored
   * @param {number | null} next of that page
   * @returns {number | null} the epoch from which on the page holds all that the server has
   */
  #joinPage(stored, next) {
    const [first] = stored.keys()
    const touches = first !== undefined && this.#turns.has(first)
    if (!this.#hasPage || next === null) {
      this.#older = next
    } else if (touches) {
      this.#older = this.#older === null ? null : Math.min(this.#older, next)
    } else {
      this.#older = next
      for (const [id, turn] of this.#turns) {
        if (isBefore(turn, next) && !this.#followed.has(id)) this.#turns.delete(id)
      }
    }
    this.#hasPage ||= stored.size > 0
    return next
  }

  /**
   * The turns that are to be shown, in the server's order. What it does not have (yet) stays before
   * what it was before.
   *
   * @param {Map<string, StoredTurn>} stored
   * @param {ReadonlySet<string>} kept
   * @param {number | null} oldest the epoch from which on `stored` is all that the server has
   */
  #ordered(stored, kept, oldest) {
    /** @type {Map<string | null, string[]>} what the server does not have, by what it is before */
    const others = new Map()
    /** @type {string[]} */
    const older = []
    /** @type {string | null} */
    let next = null
    for (const [stream_id, turn] of [...this.#turns].reverse()) {
      if (stored.has(stream_id)) {
        next = stream_id
      } else if (isBefore(turn, oldest)) {
        older.unshift(stream_id)
      } else if (kept.has(stream_id) && !this.#lives.has(stream_id)) {
        this.#gone.add(stream_id)
      } else {
        others.set(next, [stream_id, ...(others.get(next) ?? [])])
      }
    }
    return [
      ...older,
      ...[...stored.keys()].flatMap((id) => [...(others.get(id) ?? []), id]),
      ...(others.get(null) ?? []),
    ]
  }

  /** Leaves everything; answers go on at the server. */
  close() {
    for (const live of this.#lives.values()) live.leaveNow()
    this.#end()
  }

  /** The same, except that what was just sent still reaches the server. */
  leave() {
    for (const live of this.#lives.values()) live.leave()
    this.#end()
  }

  #end() {
    this.#closed = true
    this.#listeners.clear()
    call(() => this.#transport.unwatch?.(this.session_id))
  }

  /** The answer that speaks; those behind it wait for it. */
  get #first() {
    return this.#lives.values().next().value
  }

  /**
   * @param {string} stream_id
   * @param {string} prompt
   * @param {SendOptions} [options]
   */
  #ask(stream_id, prompt, { on_conflict = 'interrupt', replaces } = {}) {
    if (replaces !== undefined) on_conflict = 'interrupt'
    const replaced = on_conflict === 'interrupt' ? [...this.#lives.values()] : []
    for (const live of replaced) {
      this.#settle(live, { status: live.stopping ? 'stopped' : 'replaced' })
    }
    const turn = newTurn(stream_id, prompt, this.#now())
    turn.replaces = replaces
    if (replaces !== undefined) turn.removed = this.#cut(replaces)
    this.#turns.set(stream_id, turn)
    this.#error = null
    this.#changed(true)
    const request = {
      prompt,
      session_id: this.session_id,
      stream_id,
      on_conflict,
      // A connection that blinks is no stop; stop is a call of its own.
      on_disconnect: /** @type {const} */ ('continue'),
      ...(replaces !== undefined && { replaces }),
    }
    return this.#follow(new Live(stream_id, true), 0, replaced, async (live) => {
      // Two requests may overtake each other on their way; the newest must arrive last.
      const before = this.#order
      this.#order = live.accepted
      await waitAtMost(before, ORDER_TIMEOUT)
      for (const other of replaced) other.leaveNow()
      return this.#transport.start(request, (frame) => this.#receive(live, frame))
    })
  }

  /**
   * @param {string} stream_id
   * @param {string} prompt
   */
  async #askAgain(stream_id, prompt) {
    const turn = this.#turns.get(stream_id)
    if (!turn) return
    if (this.#isKept(turn)) return this.send(prompt, { replaces: stream_id })
    // The server has nothing to take out. (If it does have it, it comes back with the history.)
    this.#turns.delete(stream_id)
    return this.send(prompt, { replaces: turn.replaces })
  }

  /**
   * Whether the server has a turn, as far as we can tell.
   *
   * @param {Turn} turn
   */
  #isKept({ stream_id, kept }) {
    const seq = this.#view.cursors.get(stream_id)?.seq ?? 0
    return kept || seq > 0 || this.#followed.has(stream_id)
  }

  // Turns that others take the place of

  /**
   * Takes a turn and all that come after it out of the view.
   *
   * @param {string} from
   * @returns {Turn[]}
   */
  #cut(from) {
    const turns = [...this.#turns.values()]
    const index = turns.findIndex(({ stream_id }) => stream_id === from)
    const removed = index === -1 ? [] : turns.slice(index)
    for (const { stream_id } of removed) this.#turns.delete(stream_id)
    return removed
  }

  /**
   * The server has taken a turn for sure. What else than the turn that was named has gone there with
   * it, the history tells: here they may have stood in another order.
   *
   * @param {Turn} turn
   */
  #confirm(turn) {
    const [first, ...others] = removedBy(turn)
    if (!first) return
    if (others.length > 0 || first.stream_id !== turn.replaces) {
      this.refresh().catch(() => {}) // what cannot be asked now, is asked when it can
      return
    }
    this.#gone.add(first.stream_id)
    turn.removed = []
  }

  /**
   * The server has not taken a turn: what it was to take the place of is shown again.
   *
   * @param {Turn} turn
   */
  #bringBack(turn) {
    const { removed } = turn
    if (removed.length === 0) return
    turn.removed = []
    const turns = [...this.#turns.values()].flatMap((one) => (one === turn ? [...removed, one] : [one]))
    this.#turns = new Map(turns.map((one) => [one.stream_id, one]))
    this.#changed(true)
  }

  /** What is not to be shown, though the server may still have told of it. */
  #outOfSight() {
    const removed = [...this.#turns.values()].flatMap(removedBy)
    return [...this.#gone, ...removed.map(({ stream_id }) => stream_id)]
  }

  /**
   * A stream takes the place of others: they go, up to it, except what may have come after it.
   *
   * @param {Frame} frame the first one of that stream
   */
  #giveWay(frame) {
    const turn = this.#turns.get(frame.stream_id)
    const ids = [...this.#turns.keys()]
    const from = ids.indexOf(frame.replaces ?? '')
    if (from === -1 || !turn) return
    for (const id of ids.slice(from, ids.indexOf(frame.stream_id))) {
      const other = this.#turns.get(id)
      if (!other || !precedes(this.#view, id, frame)) continue
      const live = this.#lives.get(id)
      if (live) this.#settle(live, { status: 'replaced' })
      this.#turns.delete(id)
      turn.removed = [...turn.removed, other]
    }
    turn.replaces = frame.replaces
    this.#changed(true)
  }

  // Streams

  /**
   * @param {Frame} first the first frame of a stream, whoever started it
   * @param {boolean} [isNew] it has begun just now
   */
  #meet(first, isNew = true) {
    const { stream_id, replaces } = first
    if (this.#closed || judge(this.#view, first) !== 'unknown') return
    // The history may have told of its end already.
    if (this.#turns.has(stream_id) || this.#outOfSight().includes(stream_id)) return
    this.#known = true
    this.#turns.set(stream_id, newTurn(stream_id))
    if (replaces !== undefined) this.#giveWay(first)
    this.#resume(stream_id, 0, isNew)
    this.refresh().catch(() => {}) // for its question; the answer comes in any case
  }

  /**
   * @param {string} stream_id
   * @param {number} seq
   * @param {boolean} isTimed
   */
  #resume(stream_id, seq, isTimed) {
    return this.#follow(new Live(stream_id, isTimed), seq, [], async (live) =>
      this.#transport.resume(stream_id, seq, (frame) => this.#receive(live, frame)),
    )
  }

  /**
   * Reads one answer to its end.
   *
   * @param {Live} live
   * @param {number} seq the last frame that is shown already
   * @param {Live[]} replaced the answers that this one interrupts
   * @param {(live: Live) => Promise<Reading>} open
   */
  async #follow(live, seq, replaced, open) {
    this.#lives.set(live.stream_id, live)
    this.#followed.add(live.stream_id)
    read(this.#view, live.stream_id, seq)
    this.#changed()
    try {
      const reading = await open(live)
      live.attach(reading)
      await reading.closed
      this.#settle(live, { status: 'interrupted' }) // unless its last frame has settled it
    } catch (error) {
      if (isAbort(error)) return
      if (this.#isUnanswered(live)) {
        // The server did not take this message, so it did not end those before it either.
        for (const { stream_id } of replaced) this.#cancel(stream_id).catch(() => {})
      }
      this.#lose(live, error)
    } finally {
      this.#followed.delete(live.stream_id)
      live.end()
    }
  }

  /**
   * Rejects even where a transport of the page's own throws.
   *
   * @param {string} stream_id
   */
  async #cancel(stream_id) {
    return this.#transport.cancel(stream_id)
  }

  /** @param {Live} live */
  #isUnanswered({ stream_id }) {
    return this.#lives.has(stream_id) && this.#view.cursors.get(stream_id)?.seq === 0
  }

  /**
   * @param {Live} live
   * @param {unknown} error why it cannot be read any more
   */
  #lose(live, error) {
    const turn = this.#turns.get(live.stream_id)
    if (this.#lives.get(live.stream_id) !== live || !turn) return
    const refused = error instanceof Refused
    const wasLost = turn.lost
    // In mid-answer even a refusal only says that the rest cannot be had any more.
    const interrupted = !this.#isUnanswered(live)
    /** @type {Partial<Message>} */
    const change = {
      status: interrupted ? 'interrupted' : 'error',
      error: messageError(error, sentence(error)),
      ...(refused && error.traceId && { trace_id: error.traceId }),
    }
    this.#atOnce(() => {
      this.#bringBack(turn)
      this.#settle(live, change, true)
    })
    // Once only: if what that brings is lost as well, the next try is left to others.
    const mayBeKept = interrupted || !refused || error.code === 'gone' || error.code === 'not_found'
    if (!mayBeKept || wasLost) return
    this.#known = true
    this.refresh().catch(() => {})
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #receive(live, frame) {
    if (this.#closed) return 'stale'
    const verdict = judge(this.#view, frame)
    if (verdict === 'next') {
      take(this.#view, frame)
      this.#atOnce(() => this.#apply(live, frame))
    } else {
      this.#dropped[verdict] += 1
      const outdone = verdict === 'stale' && this.#lives.get(frame.stream_id)
      if (outdone) this.#outdo(outdone)
    }
    call(this.#onFrame, frame, verdict)
    return verdict
  }

  /**
   * A newer answer speaks already: what of this one we have not heard, and how it ended, the history
   * tells.
   *
   * @param {Live} live
   */
  #outdo(live) {
    const turn = this.#turns.get(live.stream_id)
    if (!turn) return
    const wasLost = turn.lost
    this.#settle(live, { status: 'replaced' }, true)
    turn.kept ||= turn.answer.tokens > 0
    if (!wasLost) this.refresh().catch(() => {})
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #apply(live, frame) {
    const turn = this.#turns.get(live.stream_id)
    if (!turn) return
    this.#known = true
    this.#isMissing = false
    turn.epoch = frame.epoch
    if (frame.seq === 1 && turn.answer.content !== '') {
      // It is read anew, from its beginning: what was shown of it comes again.
      const { created_at } = turn.answer
      this.#change(live, { ...newTurn(live.stream_id).answer, created_at })
    }
    if (frame.replaces !== undefined) this.#giveWay(frame)
    const change = changeBy(turn.answer, frame, live.isTimed ? this.#now() : null)
    if (frame.type === 'done' || frame.type === 'error') {
      const isWithdrawn = frame.finish_reason === 'cancelled' && turn.answer.position !== null
      this.#settle(live, change)
      turn.kept = frame.saved !== false
      // The server does not keep a message that was withdrawn while it waited.
      if (isWithdrawn && this.#turns.delete(live.stream_id)) this.#changed(true)
      this.#confirm(turn)
      const { superseded_by } = frame
      // Where nobody tells us of the streams of others, this does.
      if (superseded_by !== undefined && !this.#turns.has(superseded_by)) {
        this.refresh().catch(() => {})
      }
      return
    }
    this.#change(live, change)
    if (change.tokens !== 1) return
    this.#confirm(turn)
    call(this.#onBegun, turn.answer)
  }

  /**
   * Ends an answer, once: of what has ended no frame changes anything.
   *
   * @param {Live} live
   * @param {Partial<Message>} change
   * @param {boolean} [lost]
   */
  #settle(live, change, lost = false) {
    if (this.#lives.get(live.stream_id) !== live) return
    const isUnanswered = this.#isUnanswered(live)
    this.#lives.delete(live.stream_id)
    giveUp(this.#view, live.stream_id)
    const ended_at = live.isTimed ? this.#now() : null
    this.#change(live, { activity: null, position: null, ended_at, ...change }, lost)
    const next = this.#first
    // That its turn has come, the server tells only by its first word.
    if (next && this.#turns.get(next.stream_id)?.answer.position) {
      this.#change(next, { position: null })
    }
    live.leave()
    const turn = this.#turns.get(live.stream_id)
    if (!turn || this.#closed) return
    // An agent begins when its question is kept.
    if (!lost && turn.answer.tokens > 0) turn.kept = true
    // Whether it took the place of others before it was stopped, only the server can say.
    if (isUnanswered && turn.removed.length > 0) {
      live.ended.then(() => this.refresh()).catch(() => {})
    }
    call(this.#onEnded, turn.answer)
  }

  /**
   * Changes an answer.
   *
   * @param {Live} live
   * @param {Partial<Message>} change
   * @param {boolean} [lost]
   */
  #change({ stream_id }, change, lost = false) {
    const turn = this.#turns.get(stream_id)
    if (!turn) return
    turn.answer = Object.freeze({ ...turn.answer, ...change })
    turn.lost = lost
    this.#changed(true)
  }

  /** @param {boolean} [messages] these have changed, too */
  #changed(messages = false) {
    this.#snapshot = null
    if (messages) this.#messages = null
    if (this.#isChanging) return
    callAll(this.#listeners)
  }

  /**
   * Several changes as one: nobody sees what is between them.
   *
   * @template T
   * @param {() => T} work
   * @returns {T}
   */
  #atOnce(work) {
    if (this.#isChanging) return work()
    this.#isChanging = true
    try {
      return work()
    } finally {
      this.#isChanging = false
      if (this.#snapshot === null) this.#changed()
    }
  }
}

/**
 * @typedef {object} StoredTurn
 * @property {Message | null} question
 * @property {Message} answer
 * @property {string} status of the answer, in the server's words
 * @property {number | null} epoch
 */

/**
 * @param {StoredMessage[]} messages
 * @returns {Map<string, StoredTurn>} by `stream_id`, in their order
 */
function turnsOf(messages) {
  /** @type {Map<string, StoredTurn>} */
  const turns = new Map()
  /** @type {Map<string, StoredMessage>} */
  const questions = new Map()
  for (const message of messages) {
    if (message.role === 'user') questions.set(message.stream_id, message)
    if (message.role !== 'assistant') continue
    const question = questions.get(message.stream_id)
    turns.set(message.stream_id, {
      question: question ? fromStored(question, 'user') : null,
      answer: fromStored(message, 'assistant'),
      status: message.status,
      epoch: message.epoch ?? null,
    })
  }
  return turns
}

/**
 * Whether a turn is older than those that a page tells of.
 *
 * @param {Turn} turn
 * @param {number | null} oldest
 */
function isBefore({ epoch }, oldest) {
  return oldest !== null && epoch !== null && epoch < oldest
}

/**
 * @param {string} stream_id
 * @param {string} [prompt] none: asked elsewhere
 * @param {number} [created_at]
 * @returns {Turn}
 */
function newTurn(stream_id, prompt, created_at) {
  const common = { stream_id, created_at: created_at ?? null }
  const question =
    prompt === undefined
      ? null
      : newMessage({ role: 'user', status: 'complete', content: prompt, ...common })
  const answer = newMessage({ role: 'assistant', status: 'thinking', ...common })
  return {
    ...{ stream_id, question, answer },
    ...{ lost: false, kept: false, replaces: undefined, epoch: null, removed: [] },
  }
}

/**
 * @param {Turn} turn
 * @returns {Turn[]}
 */
function removedBy({ removed }) {
  return removed.flatMap((turn) => [turn, ...removedBy(turn)])
}
