/**
 * How long to wait before another try, with full jitter: a server that comes back is not met by
 * all of its clients at once.
 *
 * @param {number} tries how many have failed, from 1
 * @param {{base?: number, cap?: number, random?: () => number}} [options] milliseconds
 * @returns {number} milliseconds
 */
export declare function backoff(tries: number, { base, cap, random }?: {
    base?: number;
    cap?: number;
    random?: () => number;
}): number;
/**
 * A pause that can be cut short.
 *
 * @param {number} ms
 * @param {AbortSignal} [signal] aborted: the pause is over at once
 * @returns {Promise<void>}
 */
export declare function sleep(ms: number, signal?: AbortSignal): Promise<void>;
/**
 * Waits for a promise, but no longer than this; what became of it does not matter.
 *
 * @param {Promise<unknown>} promise
 * @param {number} ms
 * @returns {Promise<void>}
 */
export declare function waitAtMost(promise: Promise<unknown>, ms: number): Promise<void>;
/**
 * A clock for durations: one set back stands still for that moment, and does not run backwards.
 *
 * It is made of the wall clock because that counts a laptop's sleep everywhere: `performance.now()`
 * stands still meanwhile in some browsers, and what slept would look as if it had just been heard.
 *
 * @param {() => number} [now] milliseconds since the epoch
 * @returns {() => number} milliseconds since some time
 */
export declare function steady(now?: () => number): () => number;
