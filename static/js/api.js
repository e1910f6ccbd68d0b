import { HttpTransport } from './transport-http.js'

/**
 * A message as the server's history keeps it.
 *
 * @typedef {object} StoredMessage
 * @property {string} id
 * @property {string} role
 * @property {string} content
 * @property {string} status `complete`, `streaming`, `cancelled`, `superseded`, `error`,
 *   `interrupted`
 * @property {string} stream_id of the answer; a question has that of its answer
 * @property {number} [epoch] of the answer; a later turn of a session has a higher one
 * @property {string} created_at ISO 8601
 * @property {string} [ended_at] of an answer
 * @property {string} [trace_id] of an answer
 * @property {string} [finish_reason]
 * @property {{code: string, error: string, retryable: boolean}} [error] of an answer that failed
 * @property {Record<string, unknown>} [usage] what the model counted
 */

/**
 * One page of a conversation.
 *
 * @typedef {object} StoredSession
 * @property {string} session_id
 * @property {StoredMessage[]} messages oldest first
 * @property {{stream_id: string, epoch: number, seq: number} | null} active_stream
 * @property {number | null} [next] the `before` of the page with older messages; null: there are none
 */

/**
 * Which messages of a conversation are wanted.
 *
 * @typedef {object} PageOptions
 * @property {number} [before] only turns with a lower epoch: `next` of another page
 * @property {number} [limit] so many turns at most, each of them two messages
 */

/**
 * @typedef {object} ServerInfo
 * @property {{name: string, is_model: boolean}} agent who answers
 * @property {string | null} [why] a sentence why the demo answers; null for any other agent
 * @property {string} version
 * @property {number} protocol
 * @property {{max_prompt_chars: number}} [limits]
 * @property {'none' | 'token' | 'custom'} [auth] how one says who one is; `token`: see `signIn`
 * @property {string} [principal] who we are to it, when it knows
 */

/** @typedef {{base?: string | URL, fetch?: typeof globalThis.fetch}} ServerOptions */

/**
 * Gets one page of a conversation; the newest one by default.
 *
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @param {PageOptions} [page]
 * @returns {Promise<StoredSession>}
 */
export function getSession(sessionId, server, page = {}) {
  const query = new URLSearchParams()
  if (page.before !== undefined) query.set('before', String(page.before))
  if (page.limit !== undefined) query.set('limit', String(page.limit))
  const search = query.size > 0 ? `?${query}` : ''
  const path = `api/sessions/${encodeURIComponent(sessionId)}/messages${search}`
  return new HttpTransport(server).call(path)
}

/**
 * Gets all messages of a conversation, page by page.
 *
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @returns {Promise<StoredMessage[]>} oldest first
 */
export async function getSessionMessages(sessionId, server) {
  let { messages, next = null } = await getSession(sessionId, server)
  while (next !== null) {
    const older = await getSession(sessionId, server, { before: next })
    messages = [...older.messages, ...messages]
    next = older.next ?? null
  }
  return messages
}

/**
 * @param {ServerOptions} [server]
 * @returns {Promise<ServerInfo>}
 */
export function getInfo(server) {
  return new HttpTransport(server).call('api/info')
}

/**
 * Signs this browser in: a cookie that no script can read stands for the token from then on.
 *
 * Rejects with `Refused`, of the code `unauthorized` for a token that the server does not take.
 *
 * @param {string} token
 * @param {ServerOptions} [server]
 * @returns {Promise<{principal: string}>}
 */
export function signIn(token, server) {
  return new HttpTransport(server).call('api/login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token }),
  })
}

/**
 * Ends what `signIn` began, here and at the server.
 *
 * @param {ServerOptions} [server]
 * @returns {Promise<null>}
 */
export function signOut(server) {
  return new HttpTransport(server).call('api/logout', { method: 'POST' })
}

/**
 * The credential of one WebSocket.
 *
 * @typedef {object} Ticket
 * @property {string} ticket
 * @property {number | null} [sign_in_expires_in] seconds until the sign-in that it was made from
 *   expires; null: never
 */

/**
 * Gets a ticket, which opens one WebSocket in the place of a token, or renews the sign-in of an open
 * one: a browser sends no headers with a handshake.
 *
 * @param {ServerOptions} [server] whose `fetch` sends the token
 * @returns {Promise<Ticket>}
 */
export function requestTicket(server) {
  return new HttpTransport(server).call('api/ticket', { method: 'POST' })
}
