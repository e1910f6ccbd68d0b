const growsByItself = () => CSS.supports('field-sizing', 'content')

/** Whether the page is used with a finger: then there is an on-screen keyboard, without Shift+Enter. */
export const isTouch = () => matchMedia('(pointer: coarse)').matches

/**
 * A field for a message: it grows with its text. Enter sends it, except on an on-screen keyboard,
 * where it is the only key that breaks the line. Ctrl+Enter and ⌘+Enter always send.
 */
export class PromptField {
  #field

  /**
   * @param {HTMLTextAreaElement} field
   * @param {object} listeners
   * @param {() => void} listeners.onEnter
   * @param {() => void} [listeners.onChange] its text has changed
   */
  constructor(field, { onEnter, onChange }) {
    this.#field = field
    field.enterKeyHint = isTouch() ? 'enter' : 'send'
    field.addEventListener('input', () => {
      this.fit()
      onChange?.()
    })
    field.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || isComposing(event)) return
      if (isTouch() && !event.ctrlKey && !event.metaKey) return
      event.preventDefault()
      onEnter()
    })
  }

  get text() {
    return this.#field.value
  }

  set text(text) {
    if (this.#field.value !== text) this.#field.value = text
    this.fit()
  }

  /** Focuses it, the caret behind the text. */
  focusEnd() {
    this.#field.focus()
    this.#field.setSelectionRange(this.text.length, this.text.length)
  }

  /** Gives it the height of its text; the style sheet says where that ends. */
  fit() {
    if (growsByItself()) return
    this.#field.style.height = 'auto'
    this.#field.style.height = `${this.#field.scrollHeight}px`
  }
}

/**
 * Whether an input method is at work: then Enter chooses a word, and Escape drops it.
 *
 * @param {KeyboardEvent} event
 */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229 // Safari says so only here
}
