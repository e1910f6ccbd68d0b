import { waitAtMost } from './time.js'
import { BadLine, ConnectionLost, Refused, isAbort } from './errors.js'
import { NOWHERE, awaiting, judge, viewAfter } from './guard.js'
import { newId } from './ids.js'
import { deferred } from './reading.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./api.js').StoredSession} StoredSession */
/** @typedef {import('./api.js').StoredMessage} StoredMessage */

/**
 * How far a message is. Only `thinking` and `streaming` ever change.
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
 * @property {string | null} stream_id
 * @property {string | null} trace_id
 * @property {string | null} finish_reason
 * @property {string | null} activity what the agent says it is doing (a `status` frame)
 * @property {{code: string, error: string} | null} error
 */

/**
 * @typedef {object} Snapshot
 * @property {string} session_id
 * @property {readonly Readonly<Message>[]} messages oldest first
 * @property {boolean} busy an answer is being made
 * @property {boolean} stopping a stop is under way
 * @property {string | null} error what failed last, besides answers: a stop, or loading
 */

/** How long the terminal frame may come after the server has said that it stopped. Milliseconds. */
const LAST_FRAME_TIMEOUT = 2000

/**
 * How long a start waits for the one before it to arrive: the server's cancel bound and a second.
 */
const ORDER_TIMEOUT = 3000

/**
 * One conversation: its messages, and the answer being made.
 *
 * Every change makes a new, frozen snapshot and calls the listeners; an unchanged message is the
 * same object in the next snapshot.
 */
export class ChatStore {
  #transport
  #lastFrameTimeout
  /** @type {Readonly<Snapshot>} */
  #snapshot
  /** @type {Set<() => void>} */
  #listeners = new Set()
  /** @type {Readonly<import('./guard.js').View>} */
  #view = NOWHERE
  /** @type {Live | null} */
  #live = null
  /** @type {Promise<unknown>} */
  #order = Promise.resolve()
  /** How many frames were dropped, by what they were. */
  #dropped = { stale: 0, duplicate: 0, gap: 0, reply: 0 }

  /**
   * @param {object} options
   * @param {Transport} options.transport
   * @param {string} [options.session_id]
   * @param {number} [options.lastFrameTimeout]
   */
  constructor({ transport, session_id = newId(), lastFrameTimeout = LAST_FRAME_TIMEOUT }) {
    this.#transport = transport
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
   * Asks, and shows question and answer at once. An answer still being made is replaced: from this
   * call on its text does not change any more.
   *
   * @param {string} prompt
   * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
   */
  send(prompt) {
    const stream_id = newId()
    const replaced = this.#live
    if (replaced) this.#settle(replaced, { status: replaced.stopping ? 'stopped' : 'replaced' })

    this.#view = awaiting(this.#view, stream_id)
    const answer = newMessage({ role: 'assistant', status: 'thinking', stream_id })
    this.#update({
      messages: [
        ...this.#snapshot.messages,
        newMessage({ role: 'user', status: 'complete', content: prompt }),
        answer,
      ],
      error: null,
    })
    const request = {
      prompt,
      session_id: this.#snapshot.session_id,
      stream_id,
      // A connection that blinks is no stop; stop is a call of its own.
      on_disconnect: /** @type {const} */ ('continue'),
    }
    return this.#follow(answer.id, stream_id, replaced, async (live) => {
      // Two requests may overtake each other on their way; the newest must arrive last.
      const before = this.#order
      this.#order = live.accepted
      await waitAtMost(before, ORDER_TIMEOUT)
      replaced?.leaveNow()
      return this.#transport.start(request, (frame) => this.#receive(live, frame))
    })
  }

  /**
   * Stops the answer being made; what came of it stays.
   *
   * @returns {Promise<void>} resolves when the server says that it has stopped, or when there is
   *   nothing to stop; if the server cannot be told, `error` says so and the answer goes on
   */
  async stop() {
    const live = this.#live
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

  /**
   * Takes over a conversation that the server keeps, and the answer in it that is still being made.
   *
   * @param {StoredSession} session
   */
  load({ messages, active_stream }) {
    if (this.#live) this.#settle(this.#live, { status: 'interrupted' })
    const shown = messages.filter(({ role }) => role === 'user' || role === 'assistant')
    if (!active_stream) return this.#update({ messages: shown.map(fromStored) })

    // Replayed from its first frame, so it starts empty: nothing is shown twice.
    const { stream_id, epoch } = active_stream
    const answer = newMessage({ role: 'assistant', status: 'thinking', stream_id })
    const before = shown.filter(
      (message) => message.role === 'user' || message.stream_id !== stream_id,
    )
    this.#update({ messages: [...before.map(fromStored), answer] })
    this.#view = { epoch, stream_id, seq: 0 }
    this.#follow(answer.id, stream_id, null, async (live) =>
      this.#transport.resume(stream_id, 0, (frame) => this.#receive(live, frame)),
    )
  }

  /** Leaves everything; answers go on at the server. */
  close() {
    this.#live?.leaveNow()
    this.#listeners.clear()
  }

  /**
   * Reads one answer to its end.
   *
   * @param {string} messageId
   * @param {string} stream_id
   * @param {Live | null} replaced the answer that this one interrupts
   * @param {(live: Live) => Promise<Reading>} open
   */
  async #follow(messageId, stream_id, replaced, open) {
    const live = new Live(messageId, stream_id)
    this.#live = live
    this.#update({})
    try {
      const reading = await open(live)
      live.attach(reading)
      await reading.closed
      this.#settle(live, { status: 'interrupted' }) // unless its last frame has settled it
    } catch (error) {
      if (isAbort(error)) return
      if (this.#live === live && replaced && this.#view.seq === 0) {
        // The server did not take this message, so it did not end the one before either.
        this.#transport.cancel(replaced.stream_id).catch(() => {})
      }
      this.#settle(live, this.#failure(error))
    } finally {
      live.end()
    }
  }

  /**
   * @param {unknown} error
   * @returns {Partial<Message>}
   */
  #failure(error) {
    const refused = error instanceof Refused
    /** @type {Partial<Message>} */
    const change = {
      // In mid-answer even a refusal only says that the rest cannot be had any more.
      status: this.#view.seq > 0 ? 'interrupted' : 'error',
      error: { code: refused ? error.code : 'connection_lost', error: sentence(error) },
    }
    if (refused && error.traceId) change.trace_id = error.traceId
    return change
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #receive(live, frame) {
    const verdict = judge(this.#view, frame)
    if (verdict !== 'next') {
      this.#dropped[verdict] += 1
      return verdict
    }
    this.#view = viewAfter(frame)
    this.#apply(live, frame)
    return verdict
  }

  /**
   * @param {Live} live
   * @param {Frame} frame
   */
  #apply(live, frame) {
    switch (frame.type) {
      case 'token':
        this.#append(live, frame.text ?? '')
        break
      case 'status':
        this.#change(live.messageId, {
          trace_id: frame.trace_id,
          activity: frame.status === 'thinking' ? null : activity(frame),
        })
        break
      case 'done':
        this.#settle(live, {
          status: endings[frame.finish_reason ?? ''] ?? 'complete',
          finish_reason: frame.finish_reason ?? null,
        })
        break
      case 'error':
        this.#settle(live, {
          status: frame.code === 'interrupted' ? 'interrupted' : 'error',
          error: { code: frame.code ?? 'error', error: frame.error ?? 'The answer failed.' },
        })
    }
  }

  /**
   * @param {Live} live
   * @param {string} text
   */
  #append(live, text) {
    const message = this.#snapshot.messages.find(({ id }) => id === live.messageId)
    const content = (message?.content ?? '') + text
    this.#change(live.messageId, { content, status: 'streaming', activity: null })
  }

  /**
   * Ends an answer, once: what has ended never changes again.
   *
   * @param {Live} live
   * @param {Partial<Message>} change
   */
  #settle(live, change) {
    if (this.#live !== live) return
    this.#live = null
    this.#view = awaiting(this.#view, null)
    this.#change(live.messageId, { activity: null, ...change })
    live.leave()
  }

  /**
   * @param {string} id
   * @param {Partial<Message>} change
   */
  #change(id, change) {
    const messages = this.#snapshot.messages.map((message) =>
      message.id === id && isOpen(message) ? Object.freeze({ ...message, ...change }) : message,
    )
    this.#update({ messages })
  }

  /** @param {Partial<Snapshot>} change */
  #update({ messages = this.#snapshot.messages, ...change }) {
    this.#snapshot = Object.freeze({
      ...this.#snapshot,
      ...change,
      messages: Object.freeze(messages),
      busy: this.#live !== null,
      stopping: this.#live?.stopping ?? false,
    })
    for (const listener of [...this.#listeners]) listener()
  }
}

/** The answer being made: its message, and the reading of its stream. */
class Live {
  stopping = false
  #left = false
  /** @type {Reading | null} */
  #reading = null
  /** @type {import('./reading.js').Deferred<void>} */
  #accepted = deferred()
  /** @type {import('./reading.js').Deferred<void>} */
  #ended = deferred()

  /**
   * @param {string} messageId
   * @param {string} stream_id
   */
  constructor(messageId, stream_id) {
    this.messageId = messageId
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
const storedStatuses = { ...endings, error: 'error', interrupted: 'interrupted' }

/**
 * @param {StoredMessage} stored
 * @returns {Readonly<Message>}
 */
function fromStored({ id, role, content, status, stream_id }) {
  return newMessage({
    id,
    role: role === 'user' ? 'user' : 'assistant',
    content,
    // `streaming` without a live stream: its server died before it could say so.
    status: status === 'streaming' ? 'interrupted' : (storedStatuses[status] ?? 'complete'),
    stream_id,
  })
}

/**
 * @param {Partial<Message> & Pick<Message, 'role' | 'status'>} fields
 * @returns {Readonly<Message>}
 */
function newMessage(fields) {
  return Object.freeze({
    id: newId(),
    content: '',
    stream_id: null,
    trace_id: null,
    finish_reason: null,
    activity: null,
    error: null,
    ...fields,
  })
}

/** @param {Message} message */
function isOpen({ status }) {
  return status === 'thinking' || status === 'streaming'
}

/** @param {Frame} frame a status frame */
function activity({ detail, name, status }) {
  return detail ?? name ?? status ?? null
}

/** @param {unknown} error */
function sentence(error) {
  const forPeople =
    error instanceof Refused || error instanceof ConnectionLost || error instanceof BadLine
  return forPeople ? error.message : 'Something went wrong in this page.'
}
