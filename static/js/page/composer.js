import { Drafts } from './drafts.js'
import { PromptField } from './prompt-field.js'

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/** What the page says when a file is pasted or dropped. */
const NO_FILES = 'Images and files cannot be sent here: this chat takes text only.'

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
  #drafts
  /** The last error of the conversation, as the notice shows it. */
  #error = /** @type {string | null} */ (null)
  /** What was just pasted or dropped, and cannot be sent. */
  #rejected = /** @type {string | null} */ (null)
  /** @type {string | null} null: nothing is shown yet */
  #session = null

  /**
   * @param {object} actions
   * @param {(text: string) => void} actions.onSend
   * @param {() => void} actions.onStop
   * @param {Drafts} [drafts]
   */
  constructor({ onSend, onStop }, drafts = new Drafts()) {
    this.#drafts = drafts
    this.#field = new PromptField(this.#prompt, {
      onEnter: () => this.#submit(onSend),
      onChange: () => {
        this.#reject(null)
        this.#drafts.set(this.#session ?? '', this.#field.text)
        this.#check()
      },
    })
    this.#prompt.addEventListener('paste', (event) => {
      // A table copied from a spreadsheet is text and a picture of it: then the text is meant.
      const { clipboardData } = event
      if (!clipboardData?.files.length || clipboardData.types.includes('text/plain')) return
      event.preventDefault()
      this.#reject(NO_FILES)
    })
    for (const type of /** @type {const} */ (['dragover', 'drop'])) {
      // Anywhere: else the browser leaves the page and shows the file.
      window.addEventListener(type, (event) => {
        if (!event.dataTransfer?.types.includes('Files')) return
        event.preventDefault()
        event.dataTransfer.dropEffect = 'none'
        if (type === 'drop') this.#reject(NO_FILES)
      })
    }
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
    this.#error = error
    this.#showNotice()
  }

  /** @param {string} session_id of the conversation that is shown: it begins, or goes on */
  begin(session_id) {
    if (session_id === this.#session) return
    this.#drafts.set(this.#session ?? '', '')
    this.#session = session_id
    this.#drafts.set(session_id, this.#field.text)
  }

  /**
   * Gives a message back that was not sent. What is being written already stays.
   *
   * @param {string} text
   * @param {string} session_id of its conversation; if another one is shown, it waits there as a draft
   */
  giveBack(text, session_id) {
    if (session_id !== this.#session) {
      if (this.#drafts.get(session_id).trim() === '') this.#drafts.set(session_id, text)
      return
    }
    if (this.#field.text.trim() !== '') return
    this.#field.text = text
    this.#drafts.set(session_id, text)
    this.#check()
    this.#field.focusEnd()
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
    const isFirst = this.#session === null
    this.#session = session_id
    this.#reject(null)
    // What was written before the page knew its conversation is not taken away.
    if (isFirst && this.#field.text !== '') this.#drafts.set(session_id, this.#field.text)
    else this.#field.text = this.#drafts.get(session_id)
    this.#check()
  }

  /** @param {string | null} reason null: nothing is rejected any more */
  #reject(reason) {
    this.#rejected = reason
    this.#showNotice()
  }

  #showNotice() {
    const text = this.#rejected ?? this.#error ?? ''
    this.#notice.hidden = text === ''
    if (this.#notice.textContent !== text) this.#notice.textContent = text
  }

  /** @param {(text: string) => void} onSend */
  #submit(onSend) {
    this.#check()
    if (this.#send.disabled) return
    const text = this.#field.text.trim()
    this.#field.text = ''
    this.#drafts.set(this.#session ?? '', '')
    this.#reject(null)
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
