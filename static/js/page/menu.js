/** How far the menu stays from the edges of the window, in CSS pixels. */
const MARGIN = 8

/**
 * What a menu shows when it opens.
 *
 * @typedef {object} MenuContent
 * @property {string} label whose menu it is
 * @property {Partial<Record<string, string>>} links addresses of the items that are links, by
 *   their `data-choice`; a link without one is not shown
 */

/**
 * A menu: one for many buttons, placed beside the one that opened it. The arrow keys walk through
 * it, Esc and a click beside it close it.
 */
export class Menu {
  #menu
  #items
  /** @type {HTMLElement | null} */
  #button = null
  /** @type {(choice: string) => void} */
  #choose = () => {}
  #wasOpen = false

  /** @param {HTMLElement} menu a popover, its items marked `data-choice` */
  constructor(menu) {
    this.#menu = menu
    this.#items = /** @type {HTMLElement[]} */ ([...menu.querySelectorAll('[data-choice]')])
    menu.addEventListener('click', (event) => {
      const item = /** @type {Element} */ (event.target).closest('[data-choice]')
      if (item instanceof HTMLElement) this.#take(item.dataset.choice ?? '')
    })
    menu.addEventListener('keydown', (event) => this.#press(event))
    menu.addEventListener('beforetoggle', (event) => {
      if (event.newState === 'closed' && this.#button) this.#button.ariaExpanded = 'false'
    })
    window.addEventListener('resize', () => menu.hidePopover())
  }

  /**
   * Makes a button open the menu.
   *
   * @param {HTMLElement} button
   * @param {() => MenuContent} content
   * @param {(choice: string) => void} choose gets the `data-choice` of the item that was chosen,
   *   when the menu is closed and the focus is back on the button
   */
  attach(button, content, choose) {
    button.ariaHasPopup = 'menu'
    button.ariaExpanded = 'false'
    // The press closes an open menu by itself: the click must not open it again.
    button.addEventListener('pointerdown', () => {
      this.#wasOpen = this.#button === button && this.#menu.matches(':popover-open')
    })
    button.addEventListener('click', () => {
      const wasOpen = this.#wasOpen
      this.#wasOpen = false
      this.#menu.hidePopover()
      if (!wasOpen) this.#open(button, content(), choose)
    })
  }

  /**
   * @param {HTMLElement} button
   * @param {MenuContent} content
   * @param {(choice: string) => void} choose
   */
  #open(button, { label, links }, choose) {
    this.#button = button
    this.#choose = choose
    this.#menu.ariaLabel = label
    for (const item of this.#items) {
      if (!(item instanceof HTMLAnchorElement)) continue
      const address = links[item.dataset.choice ?? '']
      item.hidden = address === undefined
      if (address !== undefined) item.href = address
    }
    this.#menu.showPopover()
    button.ariaExpanded = 'true'
    this.#place(button.getBoundingClientRect())
    this.#shown[0]?.focus()
  }

  get #shown() {
    return this.#items.filter((item) => !item.hidden)
  }

  /** @param {DOMRect} beside */
  #place(beside) {
    const { offsetWidth: width, offsetHeight: height, style } = this.#menu
    const below = beside.bottom + height + MARGIN <= window.innerHeight
    const top = below ? beside.bottom : Math.max(MARGIN, beside.top - height)
    const left = Math.min(beside.right - width, window.innerWidth - width - MARGIN)
    style.top = `${top}px`
    style.left = `${Math.max(MARGIN, left)}px`
  }

  #close() {
    this.#menu.hidePopover()
    this.#button?.focus()
  }

  /** @param {string} choice */
  #take(choice) {
    this.#close()
    this.#choose(choice)
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const items = this.#shown
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement))
    const last = items.length - 1
    const next = new Map([
      ['ArrowDown', at === last ? 0 : at + 1],
      ['ArrowUp', at <= 0 ? last : at - 1],
      ['Home', 0],
      ['End', last],
    ]).get(event.key)
    if (next !== undefined) {
      event.preventDefault()
      items[next]?.focus()
    } else if (event.key === 'Escape' || event.key === 'Tab') {
      event.preventDefault() // nor is an answer stopped by it, or a drawer closed
      this.#close()
    } else if (event.key === ' ' && items[at] instanceof HTMLAnchorElement) {
      event.preventDefault()
      items[at].click()
    }
  }
}
