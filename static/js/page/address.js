import { newId } from '../ids.js'

/** What a session id may look like (protocol version 1). */
const VALID = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * The session in the address (`#session=…`), else a new one.
 *
 * @param {Window} [window]
 * @returns {{id: string, known: boolean}} `known`: it may have been used before
 */
export function currentSession(window = globalThis.window) {
  const id = new URLSearchParams(window.location.hash.slice(1)).get('session')
  return id !== null && VALID.test(id) ? { id, known: true } : { id: newId(), known: false }
}

/**
 * Puts the session into the address: a reload comes back to it, and a copy of the address shows it
 * in another tab.
 *
 * @param {string} id
 * @param {Window} [window]
 */
export function rememberSession(id, window = globalThis.window) {
  window.history.replaceState(window.history.state, '', `#session=${id}`)
}
