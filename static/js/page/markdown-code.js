import { copyText } from './clipboard.js'
import { PART_LINES } from './markdown-code-tokens.js'
import { highlight } from './markdown-highlight.js'

/** @typedef {import('./markdown-code-tokens.js').CodeToken} CodeToken */

/** For how long a button says what it did, in milliseconds. */
const SAYS_FOR = 2000

/** Blocks that get colours when they come near to what the reader sees. */
const near = new WeakMap(/** @type {[Element, () => void][]} */ ([]))
/** @type {IntersectionObserver | undefined} */
let observer

/**
 * Calls back once, when the element is nearly in sight.
 *
 * @param {Element} element
 * @param {() => void} callback
 */
function whenNear(element, callback) {
  near.set(element, callback)
  const options = { rootMargin: '600px', scrollMargin: '600px' }
  observer ??= new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue
      observer?.unobserve(target)
      near.get(target)?.()
      near.delete(target)
    }
  }, options)
  observer.observe(element)
}

/** @param {() => void} callback */
const whenIdle = (callback) =>
  'requestIdleCallback' in window
    ? window.requestIdleCallback(callback, { timeout: 1000 })
    : setTimeout(callback)

/**
 * How many characters at their beginning two texts have in common.
 *
 * @param {string} one
 * @param {string} other
 */
export function commonLength(one, other) {
  if (one.startsWith(other)) return other.length
  let same = 0
  while (same < one.length && one[same] === other[same]) same += 1
  return same
}

/** @type {WeakMap<Element, CodeBlock>} */
const codeBlocks = new WeakMap()

/**
 * The code block whose element this is.
 *
 * @param {Element} element
 */
export const codeBlockOf = (element) => codeBlocks.get(element)

/** A code block: its language, a button that copies it, and the code, which may grow. */
export class CodeBlock {
  element = document.createElement('div')
  language
  text = ''
  #code = document.createElement('code')
  /** @type {Text | null} the text of the last part */
  #last = null
  /** Whole lines in the last part. */
  #lines = 0
  #settled = false

  /**
   * @param {string} language as the answer names it; '' when it does not
   * @param {string} text
   */
  constructor(language, text) {
    this.language = language
    codeBlocks.set(this.element, this)
    this.element.className = 'code'
    this.element.dir = 'ltr'
    this.element.dataset['part'] = 'code'
    const name = document.createElement('span')
    name.className = 'language'
    name.textContent = language || 'Code'
    const said = document.createElement('span')
    said.className = 'unseen'
    said.setAttribute('role', 'status')
    const copy = document.createElement('button')
    copy.type = 'button'
    copy.dataset['testid'] = 'copy-code'
    copy.textContent = 'Copy'
    copy.addEventListener('click', () => this.#copy(copy, said))
    const head = document.createElement('div')
    head.className = 'head'
    head.append(name, said, copy)
    const pre = document.createElement('pre')
    pre.tabIndex = 0 // the keyboard can scroll it
    pre.append(this.#code)
    this.element.append(head, pre)
    this.grow(text)
  }

  /** @param {string} text the text so far, and more */
  grow(text) {
    let at = this.text.length
    this.text = text
    while (at < text.length) {
      if (!this.#last || this.#lines === PART_LINES) this.#addPart()
      let end = at
      while (this.#lines < PART_LINES && end < text.length) {
        const newline = text.indexOf('\n', end)
        end = newline === -1 ? text.length : newline + 1
        if (newline !== -1) this.#lines += 1
      }
      this.#last?.appendData(text.slice(at, end))
      at = end
    }
  }

  /**
   * Shows another text, if it differs from the one before near its end only: a line there may turn out to
   * be no code.
   *
   * @param {string} text
   * @returns {boolean} false: nothing was done
   */
  change(text) {
    if (text === this.text) return true
    const same = commonLength(text, this.text)
    const start = this.text.length - (this.#last?.length ?? 0)
    if (this.#settled || !this.#last || same < start) return false
    this.#last.deleteData(same - start, this.text.length - same)
    this.#lines = this.#last.data.split('\n').length - 1
    if (same === start) this.#removePart()
    this.text = text.slice(0, same)
    this.grow(text)
    return true
  }

  /** It will not change any more: it gets its colours when somebody is about to see it. */
  settle() {
    if (this.#settled) return
    this.#settled = true
    if (this.language !== '') whenNear(this.element, () => whenIdle(() => this.#highlight()))
  }

  #addPart() {
    this.#last = document.createTextNode('')
    this.#lines = 0
    const part = document.createElement('span')
    part.append(this.#last)
    this.#code.append(part)
  }

  /** Removes the last part, which is empty. */
  #removePart() {
    this.#code.lastElementChild?.remove()
    this.#last = null
  }

  async #highlight() {
    const text = this.text
    const parts = await highlight(text, this.language)
    const same = parts.length === this.#code.children.length
    if (same && this.text === text) this.#paint(parts, 0)
  }

  /**
   * One part at a time, whenever the browser has nothing else to do.
   *
   * @param {CodeToken[][]} parts
   * @param {number} index
   */
  #paint(parts, index) {
    const tokens = parts[index]
    if (!tokens || !this.element.isConnected) return
    whenIdle(() => {
      const part = this.#code.children[index]
      part?.replaceChildren(...tokens.map(([classes, text]) => coloured(classes, text)))
      this.#paint(parts, index + 1)
    })
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {HTMLElement} said
   */
  async #copy(button, said) {
    const copied = await copyText(this.text)
    button.textContent = copied ? 'Copied' : 'Not copied'
    said.textContent = copied ? 'The code was copied.' : 'The code could not be copied.'
    setTimeout(() => {
      button.textContent = 'Copy'
      said.textContent = ''
    }, SAYS_FOR)
  }
}

/**
 * @param {string} classes
 * @param {string} text
 */
function coloured(classes, text) {
  if (classes === '') return document.createTextNode(text)
  const span = document.createElement('span')
  span.className = classes
  span.textContent = text
  return span
}
