/**
 * The sidebar, shown or hidden. Where there is room it stands beside the page; where there is none
 * it lies over the page until it is closed, the page behind it is inert, and the focus goes back
 * to where it was.
 */
export class Drawer {
  #drawer
  #toggle
  #behind
  #narrow
  #shown = false

  /**
   * @param {object} elements
   * @param {HTMLElement} elements.drawer
   * @param {HTMLElement} elements.toggle the button that shows it
   * @param {HTMLElement} elements.close the button in it that hides it
   * @param {HTMLElement} elements.backdrop covers what is behind it
   * @param {readonly HTMLElement[]} elements.behind
   * @param {MediaQueryList} narrow whether there is no room for it
   */
  constructor({ drawer, toggle, close, backdrop, behind }, narrow) {
    this.#drawer = drawer
    this.#toggle = toggle
    this.#behind = behind
    this.#narrow = narrow
    toggle.addEventListener('click', () => this.open())
    close.addEventListener('click', () => this.close())
    backdrop.addEventListener('click', () => this.close())
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.defaultPrevented || !this.#covers) return
      if (document.querySelector('dialog[open]')) return // it closes that
      event.preventDefault()
      this.close()
    })
    narrow.addEventListener('change', () => this.#show(!narrow.matches))
    this.#show(!narrow.matches)
  }

  open() {
    if (this.#shown) return
    this.#show(true)
    this.#drawer.focus()
  }

  close() {
    if (!this.#shown) return
    this.#show(false)
    this.#toggle.focus()
  }

  /** Gets out of the way, if it lies over the page. */
  giveWay() {
    if (this.#covers) this.close()
  }

  get #covers() {
    return this.#shown && this.#narrow.matches
  }

  /** @param {boolean} shown */
  #show(shown) {
    this.#shown = shown
    this.#drawer.dataset.state = shown ? 'open' : 'closed'
    this.#drawer.inert = !shown
    this.#toggle.ariaExpanded = String(shown)
    for (const element of this.#behind) element.inert = this.#covers
  }
}
