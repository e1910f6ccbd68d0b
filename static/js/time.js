/**
 * How long to wait before another try, with full jitter: a server that comes back is not met by
 * all of its clients at once.
 *
 * @param {number} tries how many have failed, from 1
 * @param {{base?: number, cap?: number, random?: () => number}} [options] milliseconds
 * @returns {number} milliseconds
 */
export function backoff(tries, { base = 250, cap = 8000, random = Math.random } = {}) {
  return random() * Math.min(cap, base * 2 ** (tries - 1))
}

/**
 * A pause that can be cut short.
 *
 * @param {number} ms
 * @param {AbortSignal} [signal] aborted: the pause is over at once
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const finish = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', finish)
      resolve()
    }
    const timer = setTimeout(finish, ms)
    signal?.addEventListener('abort', finish)
  })
}

/**
 * Waits for a promise, but no longer than this; what became of it does not matter.
 *
 * @param {Promise<unknown>} promise
 * @param {number} ms
 * @returns {Promise<void>}
 */
export async function waitAtMost(promise, ms) {
  const waited = new AbortController()
  const finish = () => waited.abort()
  promise.then(finish, finish)
  await sleep(ms, waited.signal)
}

/**
 * A clock for durations: one set back stands still for that moment, and does not run backwards.
 *
 * It is made of the wall clock because that counts a laptop's sleep everywhere: `performance.now()`
 * stands still meanwhile in some browsers, and what slept would look as if it had just been heard.
 *
 * @param {() => number} [now] milliseconds since the epoch
 * @returns {() => number} milliseconds since some time
 */
export function steady(now = Date.now) {
  let last = now()
  let behind = 0
  return () => {
    const time = now()
    behind += Math.max(0, last - time)
    last = time
    return time + behind
  }
}
