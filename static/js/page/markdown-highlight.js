/** @typedef {import('./markdown-code-tokens.js').CodeToken} CodeToken */

/** Longer code stays without colours: the browser would need too long for so many elements. */
const LONGEST = 60_000

/** @type {Worker | null | undefined} null: it cannot be had */
let worker
let last = 0
/** @type {Map<number, (parts: CodeToken[][]) => void>} */
const waiting = new Map()

/**
 * The colours of a code block, found without keeping the page from anything.
 *
 * @param {string} code
 * @param {string} language
 * @returns {Promise<CodeToken[][]>} its parts; none when the language is not known, or it is too
 *   long; never rejects
 */
export function highlight(code, language) {
  if (language === '' || code.length > LONGEST) return Promise.resolve([])
  if (worker === undefined) worker = start()
  if (!worker) return Promise.resolve([])
  const id = (last += 1)
  worker.postMessage({ id, code, language })
  return new Promise((resolve) => waiting.set(id, resolve))
}

/** @returns {Worker | null} */
function start() {
  try {
    const started = new Worker(/** @type {URL} */ (address()), { type: 'module' })
    started.addEventListener('message', ({ data }) => {
      const { id, parts } = /** @type {{id: number, parts: CodeToken[][]}} */ (data)
      waiting.get(id)?.(parts)
      waiting.delete(id)
    })
    started.addEventListener('error', giveUp)
    return started
  } catch {
    return null
  }
}

function giveUp() {
  worker = null
  for (const resolve of waiting.values()) resolve([])
  waiting.clear()
}

/** The worker's address, vouched for where the browser asks for that (Trusted Types). */
function address() {
  const url = new URL('./markdown-highlighter.js', import.meta.url)
  /**
   * @typedef {object} Vouching
   * @property {(name: string, rules: {createScriptURL: (url: string) => string}) =>
   *   {createScriptURL: (url: string) => unknown}} createPolicy
   */
  const { trustedTypes } = /** @type {{trustedTypes?: Vouching}} */ (globalThis)
  if (!trustedTypes) return url
  const policy = trustedTypes.createPolicy('highlighter', { createScriptURL: () => url.href })
  return policy.createScriptURL(url.href)
}
