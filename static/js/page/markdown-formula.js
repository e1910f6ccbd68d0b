/** @typedef {typeof import('../../vendor/katex/katex.js')} KatexModule */

/** What an answer may ask of KaTeX: no links, no images, and nothing without an end. */
const OPTIONS = { throwOnError: true, strict: false, trust: false, maxSize: 40, maxExpand: 500 }

/** A formula with more levels of elements stays text: the layout of thousands of levels ends a tab. */
const MAX_LEVELS = 200

/** @type {WeakMap<Element, string>} the sources of the formulas that were set */
const sources = new WeakMap()
/** @type {Element[]} they are set when KaTeX is there */
let waiting = []
/** @type {Promise<void> | null} */
let loading = null
let isLoaded = false

/**
 * The source of a formula, with its marks; null: it is none.
 *
 * @param {Element} element
 */
export const formulaIn = (element) =>
  element.localName === 'span' && /^math\b/.test(element.className)
    ? (sources.get(element) ?? element.textContent)
    : null

/**
 * Sets the formulas in an element, as soon as KaTeX is there. It is loaded for the first one. A
 * formula that cannot be set stays as it was written.
 *
 * @param {Element} element
 */
export function setFormulas(element) {
  for (const formula of element.querySelectorAll('span.math')) {
    if (sources.has(formula)) continue
    sources.set(formula, formula.textContent)
    if (isLoaded) set(formula)
    else waiting.push(formula)
  }
  if (waiting.length > 0) loading ??= load()
}

async function load() {
  try {
    await Promise.all([loadStyle(), import('../../vendor/katex/katex.js')])
    isLoaded = true
    for (const formula of waiting) if (formula.isConnected) set(formula)
  } catch {
    for (const formula of waiting) sources.delete(formula) // the next one tries again
  }
  waiting = []
  loading = null
}

function loadStyle() {
  const link = document.createElement('link')
  link.rel = 'stylesheet'
  link.href = new URL('../../vendor/katex/katex.css', import.meta.url).href
  return new Promise((resolve, reject) => {
    link.addEventListener('load', resolve)
    link.addEventListener('error', () => {
      link.remove()
      reject(new Error('the style of formulas could not be loaded'))
    })
    document.head.append(link)
  })
}

/** @param {Element} formula */
function set(formula) {
  const source = sources.get(formula) ?? ''
  const length = source.startsWith('$') && !source.startsWith('$$') ? 1 : 2
  const holder = document.createElement('span')
  try {
    const displayMode = formula.classList.contains('display')
    globalThis.katex.render(source.slice(length, -length), holder, { ...OPTIONS, displayMode })
    if (levelsOf(holder) > MAX_LEVELS) return
    formula.replaceChildren(...holder.childNodes)
    formula.classList.add('set')
  } catch {
    // It is no TeX, or none that KaTeX knows.
  }
}

/**
 * How many levels of elements an element has, with its own.
 *
 * @param {Element} element
 * @returns {number}
 */
const levelsOf = (element) => 1 + Math.max(0, ...Array.from(element.children, levelsOf))
