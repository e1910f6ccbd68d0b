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
 * @property {string} created_at
 * @property {string} [finish_reason]
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
 * @property {string} version
 * @property {number} protocol
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
