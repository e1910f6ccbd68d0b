/**
 * Reports an error of the page's own code, as the browser does with one in an event listener.
 *
 * @param {unknown} error
 */
export function report(error) {
  const { reportError } = globalThis
  if (typeof reportError === 'function') reportError(error)
  else console.error(error)
}

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
export function call(callback, ...args) {
  try {
    return callback(...args)
  } catch (error) {
    report(error)
  }
}

/**
 * Calls every listener that is there now.
 *
 * @template {unknown[]} A
 * @param {Iterable<(...args: A) => unknown>} listeners
 * @param {A} args
 */
export function callAll(listeners, ...args) {
  for (const listener of [...listeners]) call(listener, ...args)
}
