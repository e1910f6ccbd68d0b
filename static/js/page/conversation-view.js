/** @typedef {import('../store.js').Message} Message */

/** How near to the end counts as being there, in CSS pixels. */
const NEAR = 40

/**
 * The messages of a conversation in the page.
 *
 * Text is only ever set as text. While an answer grows its text node is appended to (a selection in
 * it survives) and its message is `aria-busy`, so that a screen reader hears the finished answer
 * and not each piece of it.
 */
export class ConversationView {
  #scroller
  #log
  #onWithdraw
  #template = /** @type {HTMLTemplateElement} */ (document.getElementById('message'))
  /** @type {Map<string, MessageView>} */
  #views = new Map()
  #following = true
  #touched = false

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} log
   * @param {{onWithdraw: (stream_id: string) => void}} actions `onWithdraw`: a message that waits
   *   for its turn is not to be answered any more
   */
  constructor(scroller, log, { onWithdraw }) {
    this.#scroller = scroller
    this.#log = log
    this.#onWithdraw = onWithdraw
    // Only the reader's own doing pauses the following: growing text and a growing keyboard cause
    // `scroll` events too.
    for (const type of ['wheel', 'touchmove', 'keydown', 'pointerdown']) {
      scroller.addEventListener(type, () => (this.#touched = true), { passive: true })
    }
    scroller.addEventListener('scroll', () => {
      if (this.#touched) this.#following = this.#isAtEnd()
    })
    new ResizeObserver(() => this.#keepEnd()).observe(scroller)
  }

  /** Follows the end again, wherever the reader is. */
  follow() {
    this.#following = true
  }

  /** @param {readonly Readonly<Message>[]} messages */
  show(messages) {
    const ids = new Set(messages.map(({ id }) => id))
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue
      view.element.remove()
      this.#views.delete(id)
    }
    let place = this.#log.firstElementChild
    for (const message of messages) {
      let view = this.#views.get(message.id)
      if (!view) {
        view = new MessageView(this.#template, this.#onWithdraw)
        this.#views.set(message.id, view)
      }
      view.show(message)
      if (view.element === place) place = place.nextElementSibling
      else this.#log.insertBefore(view.element, place)
    }
    this.#keepEnd()
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller
    return scrollHeight - scrollTop - clientHeight < NEAR
  }

  #keepEnd() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight
  }
}

class MessageView {
  #text = new Text()
  /** @type {Readonly<Message> | null} */
  #shown = null

  /**
   * @param {HTMLTemplateElement} template
   * @param {(stream_id: string) => void} onWithdraw
   */
  constructor(template, onWithdraw) {
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true))
    this.element = /** @type {HTMLElement} */ (copy.firstElementChild)
    this.#part('text').append(this.#text)
    this.#part('withdraw').addEventListener('click', () => {
      if (this.#shown) onWithdraw(this.#shown.stream_id)
    })
  }

  /** @param {Readonly<Message>} message */
  show(message) {
    if (message === this.#shown) return
    this.#shown = message
    const { id, role, status, content, activity, position } = message
    const open = status === 'thinking' || status === 'streaming'
    this.element.id = `message-${id}`
    this.element.dataset.role = role
    this.element.dataset.state = status
    this.element.ariaBusy = String(open)
    this.#part('author').textContent = role === 'user' ? 'You' : 'Answer'
    this.#showText(content)
    this.#showLine('activity', position ? `Waiting, position ${position}` : activity)
    this.#part('withdraw').hidden = !position
    this.element.toggleAttribute('data-waiting', Boolean(position))
    this.#showLine('note', noteOf(message))
  }

  /** @param {string} content */
  #showText(content) {
    const shown = this.#text.data
    if (content === shown) return
    if (content.startsWith(shown)) this.#text.appendData(content.slice(shown.length))
    else this.#text.data = content
  }

  /**
   * @param {string} name
   * @param {string | null} text
   */
  #showLine(name, text) {
    const line = this.#part(name)
    line.hidden = text === null
    if (line.textContent !== text) line.textContent = text
  }

  /** @param {string} name */
  #part(name) {
    return /** @type {HTMLElement} */ (this.element.querySelector(`[data-part="${name}"]`))
  }
}

/** @type {Partial<Record<import('../store.js').MessageStatus, string>>} */
const statusNotes = {
  stopped: 'Stopped',
  replaced: 'Replaced by a newer message',
  interrupted: 'Interrupted: this is what had arrived',
}

/** @type {Record<string, string>} */
const reasonNotes = {
  length: 'Cut off at the length limit',
  content_filter: 'Cut off by the content filter',
}

/** @param {Message} message */
function noteOf(message) {
  const notes = [endingOf(message), message.saved ? null : 'The server could not save this answer']
  return notes.filter((note) => note !== null).join('. ') || null
}

/**
 * What has to be said about how an answer ended, if anything.
 *
 * @param {Message} message
 */
function endingOf({ status, finish_reason, error, trace_id }) {
  const trace = trace_id ? ` (trace ${trace_id})` : ''
  if (status === 'error') return `${error?.error ?? 'The answer failed.'}${trace}`
  if (status === 'complete') return reasonNotes[finish_reason ?? ''] ?? null
  const note = statusNotes[status]
  if (!note) return null
  return error ? `${note}. ${error.error}${trace}` : note
}
