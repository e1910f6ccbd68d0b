import { newId } from './ids.js'

const KEY = 'jarvis-stream.session'

/** What a session id may look like (protocol version 1). */
const VALID = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * The session of this tab: the one in the address (`#session=…`), else the one this tab remembers,
 * else a new one.
 *
 * @param {Window} [window]
 * @returns {{id: string, known: boolean}} `known`: it has been used before
 */
export function currentSession(window = globalThis.window) {
  const known = fromAddress(window.location) ?? recall(window)
  return { id: known ?? newId(), known: known !== null }
}

/**
 * Makes a reload of this tab come back to the session. A tab that may not store anything keeps it
 * in its address.
 *
 * @param {string} id
 * @param {Window} [window]
 */
export function rememberSession(id, window = globalThis.window) {
  try {
    window.sessionStorage.setItem(KEY, id)
  } catch {
    window.history.replaceState(window.history.state, '', `#session=${id}`)
  }
}

/** @param {Location} location */
function fromAddress(location) {
  return valid(new URLSearchParams(location.hash.slice(1)).get('session'))
}

/** @param {Window} window */
function recall(window) {
  // With storage blocked, merely reading `window.sessionStorage` throws.
  try {
    return valid(window.sessionStorage.getItem(KEY))
  } catch {
    return null
  }
}

/** @param {string | null} id */
function valid(id) {
  return id !== null && VALID.test(id) ? id : null
}
