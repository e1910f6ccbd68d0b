const KEY = 'jarvis-stream.when-busy'

/**
 * What a message does that is sent while an answer is being made: take its place, or wait.
 *
 * @typedef {'interrupt' | 'enqueue'} WhenBusy
 */

/**
 * @param {Window} [window]
 * @returns {WhenBusy}
 */
export function whenBusy(window = globalThis.window) {
  // With storage blocked, merely reading `window.localStorage` throws.
  try {
    return window.localStorage.getItem(KEY) === 'enqueue' ? 'enqueue' : 'interrupt'
  } catch {
    return 'interrupt'
  }
}

/**
 * Remembers it in this browser, where that is allowed.
 *
 * @param {WhenBusy} value
 * @param {Window} [window]
 */
export function setWhenBusy(value, window = globalThis.window) {
  try {
    window.localStorage.setItem(KEY, value)
  } catch {
    // Then it holds for as long as the page is open.
  }
}
