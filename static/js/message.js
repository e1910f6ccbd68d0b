import { Refused } from './errors.js'

/** @typedef {import('./frames.js').Frame} Frame */
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
 * Something that the agent did besides speaking: a `status` frame.
 *
 * @typedef {object} ActivityFields
 * @property {string} status `tool`, or another word of the agent's
 * @property {string | null} name of the tool
 * @property {string | null} detail
 * @property {string} [state] of a tool, where the agent says it: `running`, `done` or `error`
 * @property {number} [duration_ms] of a tool that has ended, where the agent says it
 * @property {string} [call_id] of a tool call, where the agent names it: the same when it has ended
 * @property {number | null} started_at ms since the epoch; null: we were not there when it began
 * @property {number | null} ended_at when the next frame came; null: it goes on, or we cannot say
 *
 * @typedef {Readonly<ActivityFields>} Activity
 */

/**
 * Why an answer failed: a sentence for people, and whether to ask again may help.
 *
 * @typedef {Readonly<{code: string, error: string, retryable: boolean}>} MessageError
 */

/**
 * @typedef {object} MessageFields
 * @property {string} id
 * @property {'user' | 'assistant'} role
 * @property {string} content
 * @property {MessageStatus} status
 * @property {string} stream_id of the answer; a question has that of its answer
 * @property {string | null} trace_id
 * @property {string | null} finish_reason
 * @property {readonly Activity[]} activities what the agent has done besides speaking, oldest first
 * @property {string | null} activity what it is doing now
 * @property {number | null} position in the queue, from 1; null: it does not wait
 * @property {boolean} saved false: the server could not keep the answer
 * @property {MessageError | null} error
 * @property {number | null} created_at ms since the epoch, as all times here; null: not known
 * @property {number | null} started_at of the first piece that was seen live
 * @property {number | null} ended_at
 * @property {number} tokens how many pieces were seen; 0 of an answer out of the history
 * @property {Readonly<Record<string, unknown>> | null} usage what the model counted
 *
 * @typedef {Readonly<MessageFields>} Message
 */

/** @type {Record<string, MessageStatus>} what a `finish_reason` makes of an answer */
const endings = { cancelled: 'stopped', superseded: 'replaced', shutdown: 'interrupted' }

/** @type {Record<string, MessageStatus>} the server's words for the ends of a message */
const storedStatuses = {
  ...endings,
  error: 'error',
  interrupted: 'interrupted',
  streaming: 'interrupted', // unless it can be followed: its server died before it could say so
}

/** @type {readonly Activity[]} */
const NOTHING = Object.freeze([])

/**
 * @param {Partial<Message> & Pick<Message, 'role' | 'status' | 'stream_id'>} fields
 * @returns {Message}
 */
export function newMessage(fields) {
  return Object.freeze({
    id: `${fields.stream_id}:${fields.role}`,
    content: '',
    trace_id: null,
    finish_reason: null,
    activities: NOTHING,
    activity: null,
    position: null,
    saved: true,
    error: null,
    created_at: null,
    started_at: null,
    ended_at: null,
    tokens: 0,
    usage: null,
    ...fields,
  })
}

/**
 * @param {StoredMessage} stored
 * @param {Message['role']} role
 * @returns {Message}
 */
export function fromStored(stored, role) {
  const { content, status, stream_id, trace_id, finish_reason, error, usage } = stored
  return newMessage({
    role,
    content,
    status: storedStatuses[status] ?? 'complete',
    stream_id,
    trace_id: trace_id ?? null,
    finish_reason: finish_reason ?? null,
    error: error ? Object.freeze(error) : null,
    created_at: timeOf(stored.created_at),
    ended_at: timeOf(stored.ended_at),
    usage: usage ? Object.freeze(usage) : null,
  })
}

/**
 * How an answer that we lost sight of really ended. What has been shown stays, where the server
 * has only a beginning of it.
 *
 * @param {Message} shown
 * @param {Message} kept
 * @returns {Message}
 */
export function reconciled(shown, kept) {
  const { activities, created_at, started_at, tokens } = shown
  return Object.freeze({
    ...kept,
    content: shown.content.startsWith(kept.content) ? shown.content : kept.content,
    trace_id: kept.trace_id ?? shown.trace_id,
    created_at: created_at ?? kept.created_at,
    ended_at: kept.ended_at ?? shown.ended_at,
    ...{ activities, started_at, tokens },
  })
}

/**
 * What a frame changes of an answer.
 *
 * @param {Message} answer
 * @param {Frame} frame that was `next`
 * @param {number | null} now null: it may have happened long ago
 * @returns {Partial<Message>}
 */
export function changeBy(answer, frame, now) {
  const activities = withoutEnd(answer.activities, now)
  switch (frame.type) {
    case 'token':
      return {
        ...{ status: 'streaming', activities, activity: null, position: null },
        content: answer.content + (frame.text ?? ''),
        tokens: answer.tokens + 1,
        started_at: answer.started_at ?? now,
      }
    case 'status': {
      const { trace_id } = frame
      return { activities, activity: null, position: null, trace_id, ...doing(activities, frame, now) }
    }
    case 'done':
      return {
        ...{ activities, saved: frame.saved !== false, ended_at: now },
        status: endings[frame.finish_reason ?? ''] ?? 'complete',
        finish_reason: frame.finish_reason ?? null,
        usage: frame.usage ? Object.freeze(frame.usage) : null,
      }
    case 'error':
      return {
        ...{ activities, saved: frame.saved !== false, ended_at: now, trace_id: frame.trace_id },
        status: frame.code === 'interrupted' ? 'interrupted' : 'error',
        error: Object.freeze({
          code: frame.code ?? 'error',
          error: frame.error ?? 'The answer failed.',
          retryable: frame.retryable ?? false,
        }),
      }
    default:
      return { activities }
  }
}

/**
 * What goes wrong on the way to an answer, as its error.
 *
 * @param {unknown} error
 * @param {string} sentence
 * @returns {MessageError}
 */
export function messageError(error, sentence) {
  const refused = error instanceof Refused
  return Object.freeze({
    code: refused ? error.code : 'connection_lost',
    error: sentence,
    retryable: !refused || error.retryable,
  })
}

/**
 * The activity that goes on has ended now.
 *
 * @param {readonly Activity[]} activities
 * @param {number | null} now
 */
function withoutEnd(activities, now) {
  const last = activities.at(-1)
  const goesOn = last && last.started_at !== null && last.ended_at === null
  if (!goesOn || now === null) return activities
  return Object.freeze(activities.with(-1, Object.freeze({ ...last, ended_at: now })))
}

/**
 * @param {readonly Activity[]} activities
 * @param {Frame} frame a status frame
 * @param {number | null} now
 * @returns {Partial<Message>}
 */
function doing(activities, frame, now) {
  const { status = '', position, detail, name, seq, state, duration_ms, call_id } = frame
  if (status === 'thinking' && seq === 1) return {}
  if (status === 'queued') return { position: position ?? null }
  const activity = Object.freeze({
    ...{ status, name: name ?? null, detail: detail ?? null },
    ...(state !== undefined && { state }),
    ...(duration_ms !== undefined && { duration_ms }),
    ...(call_id !== undefined && { call_id }),
    ...{ started_at: now, ended_at: null },
  })
  return {
    activities: Object.freeze([...activities, activity]),
    activity: detail ?? name ?? status,
  }
}

/** @param {string} [text] ISO 8601 */
function timeOf(text) {
  const time = text === undefined ? NaN : Date.parse(text)
  return Number.isNaN(time) ? null : time
}
