import { getSession } from './api.js'
import { BadLine, ConnectionLost, Refused, isAbort } from './errors.js'
import { giveUp, judge, nowhere, read, take } from './guard.js'
import { newId } from './ids.js'
import { deferred } from './reading.js'
import { waitAtMost } from './time.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./api.js').StoredSession} StoredSession */
/** @typedef {import('./api.js').StoredMessage} StoredMessage */

/**
 * How far a message is. Only `thinking` and `streaming` answers grow.
 *
 *   `thinking`     asked, no text yet
 *   `streaming`    the text is growing
 *   `complete`     ended by itself (`finish_reason` says whether at a limit)
 *   `stopped`      somebody pressed stop
 *   `replaced`     a newer message took its place
 *   `interrupted`  the server or the connection died; the text is what arrived
 *   `error`        failed; `error` says why
 *
 * @typedef {'thinking' | 'streaming' | 'complete' | 'stopped' | 'replaced' | 'interrupted'
 *   | 'error'} MessageStatus
 */

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {'user' | 'assistant'} role
 * @property {string} content
 * @property {MessageStatus} status
 * @property {string} stream_id
 * @property {string | null} trace_id
 * @property {string | null} finish_reason
 * @property {string | null} activity what the agent says it is doing (a `status` frame)
 * @property {number | null} position in the queue, from 1; null: it does not wait
 * @property {boolean} saved false: the server could not keep the answer
 * @property {{code: string, error: string} | null} error
 */

/**
 * @typedef {object} Snapshot
 * @property {string} session_id
 * @property {readonly Readonly<Message>[]} messages oldest first
 * @property {boolean} busy an answer is being made
 * @property {boolean} stopping a stop of it is under way
 * @property {string | null} error what failed last, besides answers: a stop
 */

/**
 * A question and its answer.
 *
 * @typedef {object} Turn
 * @property {string} stream_id
 * @property {Readonly<Message> | null} question null: asked elsewhere, and not fetched yet
 * @property {Readonly<Message>} answer
 * @property {boolean} lost its ending is our guess, for we could not read on; the server may know
 *   better
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
 * Every change makes a new, frozen snapshot and calls the listeners; an unchanged message is the
 * same object in the next snapshot.
 */
export class ChatStore {
  #transport
  #fetchSession
  #lastFrameTimeout
  /** @type {Readonly<Snapshot>} */
  #snapshot
  /** @type {Set<() => void>} */
  #listeners = new Set()
  #view = nowhere()
  /** @type {readonly Turn[]} */
  #turns = []
  /** @type {Map<string, Live>} the answers being made, by stream_id: the one that speaks is first */
  #lives = new Map()
  /** @type {Promise<unknown>} */
  #order = Promise.resolve()
  /** @type {Promise<void> | null} */
  #refreshing = null
  #outdated = false
  /** How many frames were dropped, by what they were. */
  #dropped = { stale: 0, duplicate: 0, gap: 0, unknown: 0, reply: 0 }

  /**
   * @param {object} options
   * @param {Transport} options.transport
   * @param {string} [options.session_id]
   * @param {(sessionId: string) => Promise<StoredSession>} [options.fetchSession]
   * @param {number} [options.lastFrameTimeout]
   */
  constructor({
    transport,
    session_id = newId(),
    fetchSession = (sessionId) => getSession(sessionId),
    lastFrameTimeout = LAST_FRAME_TIMEOUT,
  }) {
    this.#transport = transport
    this.#fetchSession = fetchSession
    this.#lastFrameTimeout = lastFrameTimeout
    this.#snapshot = Object.freeze({
      session_id,
      messages: Object.freeze([]),
      busy: false,
      stopping: false,
      error: null,
    })
  }

  getSnapshot = () => this.#snapshot

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

  /**
   * Asks, and shows question and answer at once.
   *
   * @param {string} prompt
   * @param {object} [options]
   * @param {'interrupt' | 'enqueue'} [options.on_conflict] `interrupt`: answers still being made
   *   are replaced, and from this call on their text does not change any more. `enqueue`: this one
   *   waits for its turn
   * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
   */
  send(prompt, { on_conflict = 'interrupt' } = {}) {
    const stream_id = newId()
    const replaced = on_conflict === 'interrupt' ? [...this.#lives.values()] : []
    for (const live of replaced) {
      this.#settle(live, { status: live.stopping ? 'stopped' : 'replaced' })
    }
    const question = newMessage({ role: 'user', status: 'complete', stream_id, content: prompt })
    this.#turns = [...this.#turns, newTurn(stream_id, question)]
    this.#update({ error: null })
    const request = {
      prompt,
      session_id: this.#snapshot.session_id,
      stream_id,
      on_conflict,
      // A connection that blinks is no stop; stop is a call of its own.
      on_disconnect: /** @type {const} */ ('continue'),
    }
    return this.#follow(stream_id, 0, replaced, async (live) => {
      // Two requests may overtake each other on their way; the newest must arrive last.
      const before = this.#order
      this.#order = live.accepted
      await waitAtMost(before, ORDER_TIMEOUT)
      for (const other of replaced) other.leaveNow()
      return this.#transport.start(request, (frame) => this.#receive(live, frame))
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
    this.#update({})
    try {
      await this.#transport.cancel(live.stream_id)
    } catch (error) {
      // The server does not know it: not yet (then it will end it on arrival), or not any more.
      if (!(error instanceof Refused && error.code === 'not_found')) {
        live.stopping = false
        this.#update({ error: `Could not stop: ${sentence(error)}` })
        return
      }
    }
    // The terminal frame may come on another connection than the reply.
    await waitAtMost(live.ended, this.#lastFrameTimeout)
    this.#settle(live, { status: 'stopped' })
  }

  /** From now on shows what others ask in this session, as far as the transport can tell of it. */
  watch() {
    this.#transport.watch?.(this.#snapshot.session_id, (first) => this.#meet(first))
  }

  /**
   * Brings in what the server knows of this session and we do not: what was asked elsewhere, and
   * how answers ended that we lost sight of. What is being read is not touched.
   *
   * @returns {Promise<void>} rejects with `ConnectionLost` or `Refused`
   */
  refresh() {
    this.#outdated = true
    this.#refreshing ??= this.#bringUpToDate()
    return this.#refreshing
  }

  async #bringUpToDate() {
    try {
      while (this.#outdated) {
        this.#outdated = false
        try {
          this.load(await this.#fetchSession(this.#snapshot.session_id))
        } catch (error) {
          if (!this.#outdated) throw error // else somebody has asked since
        }
      }
    } finally {
      this.#refreshing = null
    }
  }

  /**
   * Takes over a conversation as the server keeps it, and follows the answers in it that are still
   * being made.
   *
   * @param {StoredSession} session
   */
  load({ messages, active_stream }) {
    const stored = turnsOf(messages)
    const ids = [...stored.keys()]
    // What the server does not have (yet) stays before what it was before.
    let place = ids.length
    for (const { stream_id } of this.#turns.toReversed()) {
      if (stored.has(stream_id)) place = ids.indexOf(stream_id)
      else ids.splice(place, 0, stream_id)
    }
    /** @type {{stream_id: string, seq: number}[]} */
    const open = []
    this.#turns = ids.map((stream_id) => {
      const known = this.#turn(stream_id)
      const kept = stored.get(stream_id)
      if (!kept) return /** @type {Turn} */ (known)
      const question = known?.question ?? kept.question
      const isActive = active_stream?.stream_id === stream_id
      const isOpen = kept.status === 'streaming' && (isActive || !known)
      if (known && (this.#lives.has(stream_id) || !known.lost)) return { ...known, question }
      // Told where the active one stands we go on from there; another is read from its beginning.
      if (isOpen) open.push({ stream_id, seq: isActive ? active_stream.seq : 0 })
      const content = isOpen && !isActive ? '' : kept.answer.content
      const status = !isOpen ? kept.answer.status : content ? 'streaming' : 'thinking'
      const answer = Object.freeze({ ...kept.answer, status, content })
      if (!known || isOpen) return { stream_id, question, answer, lost: known?.lost ?? false }
      return { ...known, question, answer: reconciled(known.answer, answer) }
    })
    this.#update({})
    for (const { stream_id, seq } of open) this.#resume(stream_id, seq)
  }

  /** Leaves everything; answers go on at the server. */
  close() {
    for (const live of this.#lives.values()) live.leaveNow()
    this.#listeners.clear()
  }

  /** The answer that speaks; those behind it wait for it. */
  get #first() {
    return this.#lives.values().next().value
  }

  /** @param {string} stream_id */
  #turn(stream_id) {
    return this.#turns.find((turn) => turn.stream_id === stream_id)
  }

  /** @param {Frame} first the first frame of a stream, whoever started it */
  #meet(first) {
    if (judge(this.#view, first) !== 'unknown') return
    this.#turns = [...this.#turns, newTurn(first.stream_id, null)]
    this.#resume(first.stream_id, 0)
    this.refresh().catch(() => {}) // for its question; the answer comes in any case
  }

  /**
   * @param {string} stream_id
   * @param {number} seq
   */
  #resume(stream_id, seq) {
    this.#follow(stream_id, seq, [], async (live) =>
      this.#transport.resume(stream_id, seq, (frame) => this.#receive(live, frame)),
    )
  }

  /**
   * Reads one answer to its end.
   *
   * @param {string} stream_id
   * @param {number} seq the last frame that is shown already
   * @param {Live[]} replaced the answers that this one interrupts
   * @param {(live: Live) => Promise<Reading>} open
   */
  async #follow(stream_id, seq, replaced, open) {
    const live = new Live(stream_id)
    this.#lives.set(stream_id, live)
    read(this.#view, stream_id, seq)
    this.#update({})
    try {
      const reading = await open(live)
      live.attach(reading)
      await reading.closed
      this.#settle(live, { status: 'interrupted' }) // unless its last frame has settled it
    } catch (error) {
      if (isAbort(error)) return
      if (this.#isUnanswered(live)) {
        // The server did not take this message, so it did not end those before it either.
        for (const { stream_id } of replaced) this.#transport.cancel(stream_id).catch(() => {})
      }
      this.#lose(live, error)
    } finally {
      live.end()
    }
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
    const before = this.#turn(live.stream_id)
    if (this.#lives.get(live.stream_id) !== live || !before) return
    const refused = error instanceof Refused
    // In mid-answer even a refusal only says that the rest cannot be had any more.
    const interrupted = !this.#isUnanswered(live)
    /** @type {Partial<Message>} */
    const change = {
      status: interrupted ? 'interrupted' : 'error',
      error: { code: refused ? error.code : 'connection_lost', error: sentence(error) },
    }
    if (refused && error.traceId) change.trace_id = error.traceId
    this.#settle(live, change, true)
    // Once only: if what that brings is lost as well, the next try is left to others.
    const mayBeKept = interrupted || !refused || error.code === 'gone' || error.code === 'not_found'
    if (mayBeKept && !before.lost) this.refresh().catch(() => {})
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #receive(live, frame) {
    const verdict = judge(this.#view, frame)
    if (verdict === 'next') {
      take(this.#view, frame)
      this.#apply(live, frame)
      return verdict
    }
    this.#dropped[verdict] += 1
    const outdone = verdict === 'stale' && this.#lives.get(frame.stream_id)
    if (outdone) this.#settle(outdone, { status: 'replaced' })
    return verdict
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #apply(live, frame) {
    const saved = frame.saved !== false
    switch (frame.type) {
      case 'token':
        this.#append(live, frame.text ?? '')
        break
      case 'status':
        this.#change(live, { trace_id: frame.trace_id, activity: null, position: null, ...doing(frame) })
        break
      case 'done':
        this.#settle(live, {
          status: endings[frame.finish_reason ?? ''] ?? 'complete',
          finish_reason: frame.finish_reason ?? null,
          saved,
        })
        break
      case 'error':
        this.#settle(live, {
          status: frame.code === 'interrupted' ? 'interrupted' : 'error',
          error: { code: frame.code ?? 'error', error: frame.error ?? 'The answer failed.' },
          saved,
        })
    }
  }

  /**
   * @param {Live} live
   * @param {string} text
   */
  #append(live, text) {
    const content = (this.#turn(live.stream_id)?.answer.content ?? '') + text
    this.#change(live, { content, status: 'streaming', activity: null, position: null })
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
    this.#lives.delete(live.stream_id)
    giveUp(this.#view, live.stream_id)
    this.#change(live, { activity: null, position: null, ...change }, lost)
    const next = this.#first
    // That its turn has come, the server tells only by its first word.
    if (next && this.#turn(next.stream_id)?.answer.position) this.#change(next, { position: null })
    live.leave()
  }

  /**
   * Changes an answer.
   *
   * @param {Live} live
   * @param {Partial<Message>} change
   * @param {boolean} [lost]
   */
  #change({ stream_id }, change, lost = false) {
    this.#turns = this.#turns.map((turn) =>
      turn.stream_id === stream_id
        ? { ...turn, answer: Object.freeze({ ...turn.answer, ...change }), lost }
        : turn,
    )
    this.#update({})
  }

  /** @param {Partial<Snapshot>} change */
  #update(change) {
    const messages = this.#turns.flatMap(({ question, answer }) =>
      question ? [question, answer] : [answer],
    )
    this.#snapshot = Object.freeze({
      ...this.#snapshot,
      ...change,
      messages: Object.freeze(messages),
      busy: this.#lives.size > 0,
      stopping: this.#first?.stopping ?? false,
    })
    for (const listener of [...this.#listeners]) listener()
  }
}

/** An answer being made: the reading of its stream. */
class Live {
  stopping = false
  #left = false
  /** @type {Reading | null} */
  #reading = null
  /** @type {import('./reading.js').Deferred<void>} */
  #accepted = deferred()
  /** @type {import('./reading.js').Deferred<void>} */
  #ended = deferred()

  /** @param {string} stream_id */
  constructor(stream_id) {
    this.stream_id = stream_id
  }

  /** Resolves when a later start cannot overtake this one any more. */
  get accepted() {
    return this.#accepted.promise
  }

  /** Resolves when the reading is over. */
  get ended() {
    return this.#ended.promise
  }

  /** @param {Reading} reading */
  attach(reading) {
    this.#reading = reading
    reading.accepted.then(this.#accepted.resolve)
    if (this.#left) reading.leave()
  }

  end() {
    this.#ended.resolve()
    this.#accepted.resolve()
  }

  /** Stops reading as soon as the server has the request: a prompt that was sent is not lost. */
  leave() {
    this.accepted.then(() => this.leaveNow())
  }

  leaveNow() {
    this.#left = true
    this.#reading?.leave()
  }
}

/** @type {Record<string, MessageStatus>} what a `finish_reason` makes of an answer */
const endings = { cancelled: 'stopped', superseded: 'replaced', shutdown: 'interrupted' }

/** @type {Record<string, MessageStatus>} the server's words for the ends of a message */
const storedStatuses = {
  ...endings,
  error: 'error',
  interrupted: 'interrupted',
  streaming: 'interrupted', // unless it can be followed: its server died before it could say so
}

/**
 * @typedef {object} StoredTurn
 * @property {Readonly<Message> | null} question
 * @property {Readonly<Message>} answer
 * @property {string} status of the answer, in the server's words
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
    })
  }
  return turns
}

/**
 * @param {StoredMessage} stored
 * @param {Message['role']} role
 * @returns {Readonly<Message>}
 */
function fromStored({ content, status, stream_id, finish_reason }, role) {
  return newMessage({
    role,
    content,
    status: storedStatuses[status] ?? 'complete',
    stream_id,
    finish_reason: finish_reason ?? null,
  })
}

/**
 * How an answer that we lost sight of really ended. What has been shown stays, where the server
 * has only a beginning of it.
 *
 * @param {Readonly<Message>} shown
 * @param {Readonly<Message>} kept
 * @returns {Readonly<Message>}
 */
function reconciled(shown, kept) {
  const content = shown.content.startsWith(kept.content) ? shown.content : kept.content
  return Object.freeze({ ...kept, content, trace_id: shown.trace_id })
}

/**
 * @param {string} stream_id
 * @param {Readonly<Message> | null} question
 * @returns {Turn}
 */
function newTurn(stream_id, question) {
  const answer = newMessage({ role: 'assistant', status: 'thinking', stream_id })
  return { stream_id, question, answer, lost: false }
}

/**
 * @param {Partial<Message> & Pick<Message, 'role' | 'status' | 'stream_id'>} fields
 * @returns {Readonly<Message>}
 */
function newMessage(fields) {
  return Object.freeze({
    id: `${fields.stream_id}:${fields.role}`,
    content: '',
    trace_id: null,
    finish_reason: null,
    activity: null,
    position: null,
    saved: true,
    error: null,
    ...fields,
  })
}

/**
 * @param {Frame} frame a status frame
 * @returns {Partial<Message>}
 */
function doing({ status, position, detail, name }) {
  if (status === 'thinking') return {}
  if (status === 'queued') return { position: position ?? null }
  return { activity: detail ?? name ?? status ?? null }
}

/** @param {unknown} error */
function sentence(error) {
  const forPeople =
    error instanceof Refused || error instanceof ConnectionLost || error instanceof BadLine
  return forPeople ? error.message : 'Something went wrong in this page.'
}
