/**
 * Reports an error of the page's own code, as the browser does with one in an event listener.
 *
 * @param {unknown} error
 */
export declare function report(error: unknown): void;
/**
 * Calls code of the page's. What it throws is reported and goes no further: a listener that fails
 * must not end an answer, nor keep the next listener from its call.
 *
 * @template {unknown[]} A
 * @template R
 * @param {(...args: A) => R} callback
 * @param {A} args
 * @returns {R | undefined} undefined: it has thrown
 */
export declare function call<A extends unknown[], R>(callback: (...args: A) => R, ...args: A): R | undefined;
/**
 * Calls every listener that is there now.
 *
 * @template {unknown[]} A
 * @param {Iterable<(...args: A) => unknown>} listeners
 * @param {A} args
 */
export declare function callAll<A extends unknown[]>(listeners: Iterable<(...args: A) => unknown>, ...args: A): void;
