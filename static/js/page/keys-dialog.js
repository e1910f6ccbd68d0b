import { Dialog } from './dialog.js'

/** The dialog that lists the keys, made from the table that they work by. */
export class KeysDialog extends Dialog {
  #shortcuts

  /**
   * @param {HTMLDialogElement} element
   * @param {import('./shortcuts.js').Shortcuts} shortcuts
   */
  constructor(element, shortcuts) {
    super(element)
    this.#shortcuts = shortcuts
  }

  open() {
    const list = /** @type {HTMLElement} */ (this.element.querySelector('[data-part="list"]'))
    list.replaceChildren(...this.#shortcuts.table.map((shortcut) => this.#row(shortcut)))
    super.open()
  }

  /** @param {import('./shortcuts.js').Shortcut} shortcut */
  #row(shortcut) {
    const row = document.createElement('div')
    const keys = document.createElement('dt')
    const does = document.createElement('dd')
    for (const name of this.#shortcuts.names(shortcut)) {
      if (keys.childElementCount > 0) keys.append(' ')
      const key = document.createElement('kbd')
      key.textContent = name
      keys.append(key)
    }
    does.textContent = shortcut.does
    row.append(keys, does)
    return row
  }
}
