import { formatTime, pageLocale } from './format.js'
import { MarkdownView } from './markdown.js'
import { noteOf } from './notes.js'
import { StepsView } from './steps.js'
import { endingOf, timingOf } from './timing.js'

/** @typedef {import('../message.js').Message} Message */

/** @param {Message} message */
export const isOpen = ({ status }) => status === 'thinking' || status === 'streaming'

/**
 * A message in the page. What has not changed is not touched.
 *
 * The markdown of an answer that has ended is not rendered here but when `render` is called: of a
 * long conversation not all can be at once. Until then its text is shown as it was written.
 */
export class MessageView {
  #steps
  /** @type {MarkdownView | null} */
  #markdown = null
  /** @type {Message | null} */
  #shown = null
  #isWaiting = false
  /** It grows, but the server cannot be reached. */
  #isCut = false
  /** @type {string | null} the whole text that is rendered */
  #rendered = null
  /** @type {number | null | undefined} the time that is shown; undefined: nothing is yet */
  #sent
  /** @type {Map<string, HTMLElement>} */
  #parts = new Map()

  /**
   * @param {HTMLTemplateElement} template
   * @param {HTMLTemplateElement} stepTemplate
   */
  constructor(template, stepTemplate) {
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true))
    this.element = /** @type {HTMLElement} */ (copy.firstElementChild)
    for (const part of this.element.querySelectorAll('[data-part]')) {
      const name = /** @type {HTMLElement} */ (part).dataset.part ?? ''
      if (!this.#parts.has(name)) this.#parts.set(name, /** @type {HTMLElement} */ (part))
    }
    this.#steps = new StepsView(
      /** @type {HTMLDetailsElement} */ (this.part('activities')),
      stepTemplate,
    )
  }

  /** The message as it is shown. */
  get message() {
    return this.#shown
  }

  /** Whether its text is not rendered yet. */
  get needsRendering() {
    const shown = this.#shown
    if (!shown || shown.role === 'user' || isOpen(shown)) return false
    return this.#rendered !== shown.content
  }

  /** Whether its text was shown while it grew. */
  get hasGrown() {
    return this.#markdown !== null
  }

  /**
   * @param {Message} message
   * @param {boolean} isWaiting its turn has not come yet
   * @param {boolean} [isOffline] the server cannot be reached
   * @returns {boolean} whether anything has changed
   */
  show(message, isWaiting, isOffline = false) {
    const isCut = isOffline && isOpen(message)
    const isSame = message === this.#shown && isWaiting === this.#isWaiting
    if (isSame && isCut === this.#isCut) return false
    const before = this.#shown
    this.#shown = message
    this.#isWaiting = isWaiting
    this.#isCut = isCut
    this.element.toggleAttribute('data-cut', isCut)
    if (!before || before.content !== message.content || isOpen(before) !== isOpen(message)) {
      this.#showText()
    }
    if (before?.status !== message.status || before.trace_id !== message.trace_id) this.#showState()
    this.element.toggleAttribute('data-waiting', isWaiting)
    this.#hide('edit', message.role !== 'user' || isWaiting)
    this.#hide('withdraw', !message.position)
    if (message.role === 'assistant') this.#showAnswer(message)
    this.#showSent(timeOf(message))
    return true
  }

  /** Renders the whole text of an answer that has ended. */
  render() {
    const content = this.#shown?.content ?? ''
    if (!this.needsRendering) return
    this.#rendered = content
    this.#markdown ??= this.#newMarkdown()
    this.#markdown.finish(content)
  }

  /**
   * Shows how long it takes by now.
   *
   * @param {number} now ms since the epoch
   */
  tick(now) {
    const message = this.#shown
    if (!message || !isOpen(message) || message.position || this.#isCut) return
    this.#write('timing', timingOf(message, now))
  }

  /**
   * @param {string} name
   * @returns {HTMLElement}
   */
  part(name) {
    return /** @type {HTMLElement} */ (this.#parts.get(name))
  }

  #showText() {
    const message = /** @type {Message} */ (this.#shown)
    if (message.role === 'user') {
      this.#showPlain(message.content)
    } else if (isOpen(message)) {
      if (this.#rendered !== null) this.#markdown = null // it grows again, after all
      this.#rendered = null
      this.#markdown ??= this.#newMarkdown()
      this.#markdown.update(message.content)
    } else if (this.#rendered !== null || !this.#markdown) {
      this.#markdown = null
      this.#rendered = message.content === '' ? '' : null
      this.#showPlain(message.content)
    } else {
      this.#markdown.catchUp(message.content) // nothing of it may come later than its end
    }
    this.element.toggleAttribute('data-empty', message.content === '')
  }

  /** @param {string} content */
  #showPlain(content) {
    const text = this.part('text')
    delete text.dataset.markdown
    text.dir = 'auto'
    this.#write('text', content)
  }

  #newMarkdown() {
    const text = this.part('text')
    text.replaceChildren()
    text.dataset.markdown = ''
    text.removeAttribute('dir') // each block has its own
    return new MarkdownView(text)
  }

  #showState() {
    const { id, role, status } = /** @type {Message} */ (this.#shown)
    this.element.id = `message-${id}`
    this.element.dataset.role = role
    this.element.dataset.state = status
    this.#write('author', role === 'user' ? 'You' : 'Answer')
  }

  /** @param {Message} message */
  #showAnswer(message) {
    const open = isOpen(message)
    this.element.ariaBusy = open ? 'true' : null
    this.#steps.show(message.activities, open)
    this.#showLine('activity', this.#isCut ? cutOf(message) : activityOf(message))
    const note = noteOf(message)
    this.#write('note', note ?? '')
    this.#hide('failure', note === null)
    const failed = message.status === 'error' || message.status === 'interrupted'
    // The same request again cannot help when the error says so; the user can edit the question.
    this.#hide('retry', !failed || message.error?.retryable === false)
    this.#hide('copy-trace', !failed || !message.trace_id)
    this.#hide('copy', open || message.content === '')
    this.#hide('regenerate', open || failed)
    if (!this.#isCut) this.#write('timing', open ? '' : timingOf(message, null))
    else if (isUnsent(message)) this.#write('timing', '')
    if (open) this.tick(Date.now())
    const timing = this.part('timing')
    timing.title = open ? '' : endingOf(message)
    timing.ariaHidden = open ? 'true' : null
  }

  /** @param {number | null} time */
  #showSent(time) {
    if (time === this.#sent) return
    this.#sent = time
    const sent = /** @type {HTMLTimeElement} */ (this.part('sent'))
    sent.hidden = time === null
    if (time === null) return
    const { short, long } = formatTime(time, pageLocale())
    sent.dateTime = new Date(time).toISOString()
    sent.title = long
    sent.textContent = short
  }

  /**
   * @param {string} name
   * @param {string | null} text null: hide it
   */
  #showLine(name, text) {
    this.#hide(name, text === null)
    this.#write(name, text ?? '')
  }

  /**
   * @param {string} name
   * @param {boolean} hidden
   */
  #hide(name, hidden) {
    const element = this.part(name)
    if (element.hidden !== hidden) element.hidden = hidden
  }

  /**
   * @param {string} name
   * @param {string} text
   */
  #write(name, text) {
    const element = this.part(name)
    if (element.textContent !== text) element.textContent = text
  }
}

/**
 * When a question was asked, or an answer was there.
 *
 * @param {Message} message
 */
const timeOf = ({ role, created_at, ended_at }) =>
  role === 'user' ? created_at : (ended_at ?? created_at)

/** @param {Message} message */
function activityOf({ position, activity, activities, status }) {
  if (position) return `Waiting, position ${position}`
  if (activities.length > 0) return null // the steps say it
  return activity ?? (status === 'thinking' ? 'Thinking' : null)
}

/**
 * Whether the server has said nothing of it yet.
 *
 * @param {Message} message
 */
const isUnsent = ({ status, trace_id, position, activities }) =>
  status === 'thinking' && trace_id === null && !position && activities.length === 0

/**
 * What to say of an answer while the server cannot be reached.
 *
 * @param {Message} message
 */
const cutOf = (message) => (isUnsent(message) ? 'Not sent yet' : 'Waiting for the connection')
