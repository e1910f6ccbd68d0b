import { PromptField } from './prompt-field.js'

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/** Where a message is written. What is written in one conversation waits there for its reader. */
export class Composer {
  #form = part('form')
  #prompt = /** @type {HTMLTextAreaElement} */ (part('prompt'))
  #send = /** @type {HTMLButtonElement} */ (part('send'))
  #stop = /** @type {HTMLButtonElement} */ (part('stop'))
  #limitText = part('limit')
  #notice = part('notice')
  #field
  #limit = Infinity
  #tooMany = 0
  /** @type {Map<string, string>} by session_id; that of the new conversation has none */
  #drafts = new Map()
  /** @type {string | null} null: nothing is shown yet */
  #session = null

  /**
   * @param {object} actions
   * @param {(text: string) => void} actions.onSend
   * @param {() => void} actions.onStop
   */
  constructor({ onSend, onStop }) {
    this.#field = new PromptField(this.#prompt, {
      onEnter: () => this.#submit(onSend),
      onChange: () => this.#check(),
    })
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.#submit(onSend)
    })
    this.#stop.addEventListener('click', () => {
      this.focus()
      onStop()
    })
  }

  /**
   * @param {object} state
   * @param {string} state.session_id empty: a conversation that has not begun
   * @param {boolean} state.busy
   * @param {boolean} state.stopping
   * @param {string | null} state.error
   */
  show({ session_id, busy, stopping, error }) {
    if (session_id !== this.#session) this.#turnTo(session_id)
    this.#stop.hidden = !busy
    this.#stop.disabled = stopping
    const label = stopping ? 'Stopping' : 'Stop'
    if (this.#stop.ariaLabel !== label) this.#stop.ariaLabel = label
    this.#notice.hidden = error === null
    if (this.#notice.textContent !== (error ?? '')) this.#notice.textContent = error
  }

  /** @param {string} session_id of the conversation that is shown: it begins, or goes on */
  begin(session_id) {
    this.#session = session_id
  }

  /** @param {number} characters the most that a message may have */
  setLimit(characters) {
    this.#limit = characters
    this.#check()
  }

  focus() {
    this.#prompt.focus()
  }

  /** @param {string} session_id */
  #turnTo(session_id) {
    // What was written before the page knew its conversation is not taken away.
    if (this.#session !== null) {
      this.#drafts.set(this.#session, this.#field.text)
      this.#field.text = this.#drafts.get(session_id) ?? ''
    }
    this.#drafts.delete(session_id)
    this.#session = session_id
    this.#check()
  }

  /** @param {(text: string) => void} onSend */
  #submit(onSend) {
    this.#check()
    if (this.#send.disabled) return
    const text = this.#field.text.trim()
    this.#field.text = ''
    this.#check()
    this.focus()
    onSend(text)
  }

  #check() {
    const text = this.#field.text.trim()
    this.#tooMany = Math.max(0, lengthOf(text, this.#limit) - this.#limit)
    this.#send.disabled = text === '' || this.#tooMany > 0
    const count = this.#tooMany.toLocaleString('en')
    const noun = this.#tooMany === 1 ? 'character' : 'characters'
    const said = this.#tooMany === 0 ? '' : `${count} ${noun} too many`
    if (this.#limitText.textContent !== said) this.#limitText.textContent = said
  }
}

/**
 * How many characters a text has, as the server counts them. Emoji are one each.
 *
 * @param {string} text
 * @param {number} limit shorter ones need not be counted exactly
 */
function lengthOf(text, limit) {
  if (text.length <= limit) return text.length
  let length = 0
  for (const _ of text) length += 1
  return length
}
