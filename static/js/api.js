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
 * @property {string} created_at ISO 8601
 * @property {string} [ended_at] of an answer
 * @property {string} [trace_id] of an answer
 * @property {string} [finish_reason]
 * @property {{code: string, error: string, retryable: boolean}} [error] of an answer that failed
 * @property {Record<string, unknown>} [usage] what the model counted
 */

/**
 * @typedef {object} StoredSession
 * @property {string} session_id
 * @property {StoredMessage[]} messages
 * @property {{stream_id: string, epoch: number, seq: number} | null} active_stream
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
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @returns {Promise<StoredSession>}
 */
export function getSession(sessionId, server) {
  return new HttpTransport(server).call(`/api/sessions/${encodeURIComponent(sessionId)}/messages`)
}

/**
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @returns {Promise<StoredMessage[]>}
 */
export async function getSessionMessages(sessionId, server) {
  return (await getSession(sessionId, server)).messages
}

/**
 * @param {ServerOptions} [server]
 * @returns {Promise<ServerInfo>}
 */
export function getInfo(server) {
  return new HttpTransport(server).call('/api/info')
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
  return new HttpTransport(server).call('/api/login', {
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
  return new HttpTransport(server).call('/api/logout', { method: 'POST' })
}

/**
 * A word that opens one WebSocket, once and soon, in the place of a token: a browser sends no
 * headers with those.
 *
 * @param {ServerOptions} [server] whose `fetch` says who we are
 * @returns {Promise<string>}
 */
export async function newTicket(server) {
  /** @type {{ticket: string}} */
  const { ticket } = await new HttpTransport(server).call('/api/ticket', { method: 'POST' })
  return ticket
}
