/** The anchor reaches at least so far below the upper edge of the view. CSS pixels. */
const EDGE = 24

/** How deep in the tree the anchor is looked for. */
const MAX_DEPTH = 12

/**
 * Keeps what the reader sees where it is, whatever changes its height above it.
 *
 * Browsers differ in this: some do nothing at the very top, some do nothing at all. What a browser
 * has done already is recognised, and the rest is done here.
 */
export class ScrollAnchor {
  #scroller
  #content
  /**
   * The first element in view and the elements around it, innermost first, each with its distance
   * from the start of the content. The outer ones count when an inner one has been replaced. Never
   * one of them alone, even if all of it is in view: something may be added at its own beginning.
   *
   * @type {{element: Element, at: number}[]}
   */
  #chain = []
  /** How far the content was scrolled when that was measured. */
  #top = 0
  /** What browsers have rounded off so far, in CSS pixels. */
  #remainder = 0

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} content
   */
  constructor(scroller, content) {
    this.#scroller = scroller
    this.#content = content
  }

  /** Remembers what is in view now. */
  pick() {
    this.#chain = []
    this.#top = this.#scroller.scrollTop
    const edge = this.#scroller.getBoundingClientRect().top + EDGE
    /** @type {Element | undefined} */
    let element = this.#content
    for (let depth = 0; depth < MAX_DEPTH; depth += 1) {
      element = firstBelow(element.children, edge)
      if (!element) return
      this.#chain.unshift({ element, at: this.#distance(element) })
    }
  }

  /** Where the view shows what it showed when that was measured; NaN when nothing of it is left. */
  get wanted() {
    const anchor = this.#chain.find(({ element }) => element.isConnected && isRendered(element))
    if (!anchor) return NaN
    return this.#top + this.#distance(anchor.element) - anchor.at + this.#remainder
  }

  /** Scrolls by as much as what was in view has moved within the content since it was measured. */
  restore() {
    const { wanted } = this
    if (Number.isNaN(wanted)) {
      this.pick()
      return
    }
    const before = this.#scroller.scrollTop
    if (Math.abs(wanted - before) >= 1) this.#scroller.scrollTop = wanted
    this.#top = this.#scroller.scrollTop
    const rest = wanted - this.#top
    this.#remainder = Math.abs(rest) < 1 ? rest : 0 // more: there is no room to scroll to
    for (const one of this.#chain) one.at = this.#distance(one.element)
  }

  /** @param {Element} element */
  #distance(element) {
    const start = this.#scroller.getBoundingClientRect().top - this.#scroller.scrollTop
    return element.getBoundingClientRect().top - start
  }
}

/** @param {Element} element */
const isRendered = (element) => element.getClientRects().length > 0

/** @param {Element} element which may move by itself when the reader scrolls */
const isInFlow = (element) => ['static', 'relative'].includes(getComputedStyle(element).position)

/**
 * The first of some elements, which follow each other downwards, that ends below an edge.
 *
 * @param {HTMLCollection} elements
 * @param {number} edge
 * @returns {Element | undefined}
 */
function firstBelow(elements, edge) {
  let low = 0
  let high = elements.length
  while (low < high) {
    const middle = (low + high) >> 1
    let shown = middle
    while (shown < high && !isRendered(/** @type {Element} */ (elements[shown]))) shown += 1
    const isBelow =
      shown === high || /** @type {Element} */ (elements[shown]).getBoundingClientRect().bottom > edge
    if (isBelow) high = middle
    else low = shown + 1
  }
  for (let index = low; index < elements.length; index += 1) {
    const element = /** @type {Element} */ (elements[index])
    if (isRendered(element) && isInFlow(element)) return element
  }
}
