/** The dialog that asks before something is done that cannot be undone. */
export class ConfirmDialog {
  #dialog
  #title
  #text
  #yes

  /** @param {HTMLDialogElement} dialog with `data-part` title, text, no and yes */
  constructor(dialog) {
    /** @param {string} name */
    const part = (name) =>
      /** @type {HTMLElement} */ (dialog.querySelector(`[data-part="${name}"]`))
    this.#dialog = dialog
    this.#title = part('title')
    this.#text = part('text')
    this.#yes = part('yes')
    this.#yes.addEventListener('click', () => dialog.close('yes'))
    part('no').addEventListener('click', () => dialog.close('no'))
  }

  /**
   * @param {{title: string, text: string, yes: string}} words `yes`: the name of the button that
   *   does it
   * @returns {Promise<boolean>} Esc, and a click beside the dialog, say no
   */
  ask({ title, text, yes }) {
    this.#title.textContent = title
    this.#text.textContent = text
    this.#yes.textContent = yes
    this.#dialog.returnValue = 'no'
    this.#dialog.showModal()
    return new Promise((resolve) => {
      const end = () => resolve(this.#dialog.returnValue === 'yes')
      this.#dialog.addEventListener('close', end, { once: true })
    })
  }
}
