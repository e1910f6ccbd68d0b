/**
 * A modal dialog with a close button. The browser does the rest: Esc and a click beside it close
 * it, and the focus goes back to where it was.
 */
export class Dialog {
  /** @param {HTMLDialogElement} element */
  constructor(element) {
    this.element = element
    const close = /** @type {HTMLElement} */ (element.querySelector('[data-part="close"]'))
    close.addEventListener('click', () => element.close())
  }

  open() {
    if (!this.element.open) this.element.showModal()
  }
}
