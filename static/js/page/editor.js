import { PromptField, isComposing } from './prompt-field.js'

/** The field in which a message is changed, in the place of its text. */
export class Editor {
  #field

  /**
   * @param {HTMLTemplateElement} template
   * @param {string} text the message as it is
   * @param {object} actions
   * @param {(text: string) => void} actions.onSend
   * @param {() => void} actions.onCancel
   */
  constructor(template, text, { onSend, onCancel }) {
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true))
    this.element = /** @type {HTMLFormElement} */ (copy.firstElementChild)
    const textarea = /** @type {HTMLTextAreaElement} */ (this.#part('prompt'))
    const send = /** @type {HTMLButtonElement} */ (this.#part('send'))
    const field = new PromptField(textarea, {
      onEnter: () => this.element.requestSubmit(),
      onChange: () => (send.disabled = field.text.trim() === ''),
    })
    this.#field = field
    field.text = text
    this.element.addEventListener('submit', (event) => {
      event.preventDefault()
      if (field.text.trim() !== '') onSend(field.text.trim())
    })
    this.element.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || isComposing(event)) return
      event.preventDefault() // it would stop the answer
      onCancel()
    })
    this.#part('cancel').addEventListener('click', onCancel)
  }

  /** To be called once it is in the page. */
  focus() {
    this.#field.fit()
    this.#field.focusEnd()
  }

  /** @param {string} name */
  #part(name) {
    return /** @type {HTMLElement} */ (this.element.querySelector(`[data-part="${name}"]`))
  }
}
