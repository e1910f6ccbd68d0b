import { copyText } from './clipboard.js'
import { Editor } from './editor.js'
import { MessageView, isOpen } from './message-view.js'
import { EndFollower } from './scrolling.js'
import { Slices } from './slices.js'

/** @typedef {import('../message.js').Message} Message */

/**
 * What the reader may want of a message.
 *
 * @typedef {object} MessageActions
 * @property {(stream_id: string) => void} onWithdraw what waits is not to be answered any more
 * @property {(stream_id: string) => void} onRetry
 * @property {(stream_id: string) => void} onRegenerate asks first where more than this turn goes
 * @property {(stream_id: string, prompt: string) => void} onEdit
 * @property {() => void} onOlder older messages than those that are shown are wanted
 * @property {() => void} onLeave the reader is done here, and goes back to the composer
 */

/** How often the time of a running answer moves on, in milliseconds. */
const TICK = 250

/** So many of the newest messages are there at once: more than a window can show. */
const NEWEST = 20

/** While the reader scrolls, older messages wait for so long at a time. Milliseconds. */
const PAUSE = 100

/** Older messages that did not come are asked for again after so long. Milliseconds. */
const RETRY = 5000

/** How long "Copied" is shown, in milliseconds. */
const COPIED = 1600

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/** @param {string} id */
const templateOf = (id) => /** @type {HTMLTemplateElement} */ (document.getElementById(id))

/**
 * The messages of a conversation in the page.
 *
 * The finished ones are in a log; from the first one that can still change on they are beside it,
 * and move over when they have ended. So nothing in the log ever changes by itself. Of a long
 * conversation the end is there first, and the older messages come before it one by one.
 */
export class ConversationView {
  #scroller = part('scroller')
  #log = part('log')
  #open = part('open')
  #jump = part('jump')
  #actions
  #follower
  #slices = new Slices()
  /** @type {readonly Message[]} all of them, also those that are not in the page yet */
  #messages = []
  /** @type {Map<string, MessageView>} by the id of the message: of the newest ones, without a gap */
  #views = new Map()
  #isFilling = false
  #hasOlder = false
  #isOffline = false
  /** Before which message older ones were asked for last, and when. */
  #asked = { before: /** @type {string | undefined} */ (undefined), at: 0 }
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #fillingLater
  /** @type {{view: MessageView, editor: Editor} | null} */
  #editing = null
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticking

  /** @param {MessageActions} actions */
  constructor(actions) {
    this.#actions = actions
    this.#follower = new EndFollower(this.#scroller, part('messages'), () => {
      this.#showJump()
      this.#askForOlder()
    })
    part('messages').addEventListener('click', (event) => this.#click(event))
    window.addEventListener('beforeprint', () => this.#complete())
    this.#jump.addEventListener('click', () => {
      this.follow()
      actions.onLeave()
    })
  }

  /** Goes to the end and follows it again, wherever the reader is. */
  follow() {
    this.#follower.follow()
  }

  /** Another conversation is shown from now on. */
  clear() {
    this.#editing = null
    this.#isFilling = false
    this.#hasOlder = false
    clearTimeout(this.#fillingLater)
    this.#slices.clear()
    this.#messages = []
    this.#views.clear()
    this.#log.replaceChildren()
    this.#open.replaceChildren()
    this.#follower.follow()
  }

  /**
   * @param {readonly Message[]} messages
   * @param {boolean} [hasOlder] the server has older ones, which are not being fetched yet
   * @param {boolean} [isOffline] the server cannot be reached
   */
  show(messages, hasOlder = false, isOffline = false) {
    this.#hasOlder = hasOlder
    this.#isOffline = isOffline
    const ids = new Set(messages.map(({ id }) => id))
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue
      if (this.#editing?.view === view) this.#leaveEditor()
      view.element.remove()
      this.#views.delete(id)
    }
    this.#messages = messages
    const firstOpen = messages.findIndex(isOpen)
    const finished = firstOpen === -1 ? messages.length : firstOpen
    const first = Math.min(this.#oldest, finished, Math.max(0, messages.length - NEWEST))
    if (first > 0) this.#fill()
    let changed = false
    let isUrgent = false
    for (const [index, message] of messages.entries()) {
      if (index < first) continue
      const view = this.#viewOf(message.id)
      if (!this.#showIn(view, index)) continue
      changed = true
      if (!view.needsRendering) continue
      this.#slices.add(() => view.render())
      isUrgent ||= !view.hasGrown
    }
    this.#place(messages.slice(first, finished), this.#log)
    this.#place(messages.slice(finished), this.#open)
    this.#open.hidden = firstOpen === -1
    // What has grown here is there already: that it moves to the log is enough for one frame.
    if (isUrgent) this.#slices.run()
    else this.#slices.wait()
    this.#keepTime(firstOpen !== -1)
    if (changed) this.#follower.grown()
    this.#askForOlder()
  }

  /** The reader comes near to the oldest message in the page, and the server has older ones. */
  #askForOlder() {
    if (!this.#hasOlder || !this.#follower.isNearStart || this.#oldest > 0) return
    const oldest = this.#messages[0]?.id
    const now = performance.now()
    // What could not be had is not asked for again at once.
    if (oldest === this.#asked.before && now - this.#asked.at < RETRY) return
    this.#asked = { before: oldest, at: now }
    this.#actions.onOlder()
  }

  /** The index of the oldest message that is in the page; none is: one past the last. */
  get #oldest() {
    const index = this.#messages.findIndex(({ id }) => this.#views.has(id))
    return index === -1 ? this.#messages.length : index
  }

  /** Brings in what is older than the oldest message in the page, when all else is done. */
  #fill() {
    if (this.#isFilling) return
    this.#isFilling = true
    this.#slices.add(() => this.#showOlder())
  }

  #showOlder() {
    if (this.#follower.isScrolling) {
      this.#fillingLater = setTimeout(() => {
        this.#slices.add(() => this.#showOlder())
        this.#slices.run()
      }, PAUSE)
      return
    }
    this.#isFilling = false
    if (!this.#prepend(this.#oldest - 1)) return this.#askForOlder()
    this.#fill()
  }

  /** Brings in all messages now: a print shows them all. */
  #complete() {
    for (let index = this.#oldest - 1; index >= 0; index -= 1) this.#prepend(index)
    this.#slices.finish()
    part('missing').hidden = !this.#hasOlder
  }

  /**
   * @param {number} index of a message older than those in the page
   * @returns {boolean} whether there is one
   */
  #prepend(index) {
    const message = this.#messages[index]
    if (!message) return false
    const view = this.#viewOf(message.id)
    this.#showIn(view, index)
    view.render()
    this.#log.prepend(view.element)
    return true
  }

  /**
   * @param {MessageView} view
   * @param {number} index of its message
   */
  #showIn(view, index) {
    const message = /** @type {Message} */ (this.#messages[index])
    const answer = message.role === 'user' ? this.#messages[index + 1] : message
    return view.show(message, Boolean(answer?.position), this.#isOffline)
  }

  /**
   * Opens the editor again that was left with this text.
   *
   * @param {string} stream_id
   * @param {string} text
   */
  editAgain(stream_id, text) {
    const message = this.#messages.find((one) => one.stream_id === stream_id && one.role === 'user')
    if (message) this.edit(message.id, text)
  }

  /**
   * Lets the reader change a message, and send it again.
   *
   * @param {string} id
   * @param {string} [text] what it is changed to already
   */
  edit(id, text) {
    const view = this.#views.get(id)
    const message = view?.message
    if (!view || !message) return
    this.#leaveEditor()
    const editor = new Editor(templateOf('editor'), text ?? message.content, {
      onSend: (text) => {
        this.#leaveEditor()
        this.#actions.onEdit(message.stream_id, text)
      },
      onCancel: () => {
        this.#leaveEditor()
        this.#actions.onLeave()
      },
    })
    this.#editing = { view, editor }
    view.element.dataset.editing = ''
    this.#follower.pause()
    view.element.append(editor.element)
    editor.focus()
    editor.element.scrollIntoView({ block: 'nearest' })
  }

  #leaveEditor() {
    if (!this.#editing) return
    const { view, editor } = this.#editing
    this.#editing = null
    editor.element.remove()
    delete view.element.dataset.editing
    this.#follower.resume()
  }

  /** @param {string} id */
  #viewOf(id) {
    let view = this.#views.get(id)
    if (!view) {
      view = new MessageView(templateOf('message'), templateOf('step'))
      this.#views.set(id, view)
    }
    return view
  }

  /**
   * @param {readonly Message[]} messages
   * @param {HTMLElement} parent
   */
  #place(messages, parent) {
    let place = parent.firstElementChild
    for (const { id } of messages) {
      const { element } = this.#viewOf(id)
      if (element === place) place = place.nextElementSibling
      else move(element, parent, place)
    }
  }

  /** @param {MouseEvent} event */
  #click({ target }) {
    if (!(target instanceof Element)) return
    const button = target.closest('button')
    const message = button?.closest('.message')
    const name = button?.dataset.part
    if (!button || !message || !name) return
    const view = this.#views.get(message.id.replace(/^message-/, ''))
    if (view) this.#act(name, view, button)
  }

  /**
   * @param {string} name
   * @param {MessageView} view
   * @param {HTMLButtonElement} button
   */
  #act(name, view, button) {
    const { id, stream_id, content, trace_id } = /** @type {Message} */ (view.message)
    if (name === 'copy') copyFrom(button, content)
    else if (name === 'copy-trace') copyFrom(button, trace_id ?? '')
    else if (name === 'edit') this.edit(id)
    else if (name === 'withdraw') this.#leave(() => this.#actions.onWithdraw(stream_id))
    else if (name === 'retry') this.#leave(() => this.#actions.onRetry(stream_id))
    else if (name === 'regenerate') this.#actions.onRegenerate(stream_id)
  }

  /**
   * The button that was pressed goes away; the focus must not go with it.
   *
   * @param {() => void} act
   */
  #leave(act) {
    act()
    this.#actions.onLeave()
  }

  /** @param {boolean} isRunning */
  #keepTime(isRunning) {
    if (!isRunning) {
      clearInterval(this.#ticking)
      this.#ticking = undefined
      return
    }
    this.#ticking ??= setInterval(() => {
      const now = Date.now()
      for (const view of this.#views.values()) view.tick(now)
    }, TICK)
  }

  #showJump() {
    const { isAway, hasUnseen } = this.#follower
    if (this.#jump.hidden === isAway) this.#jump.hidden = !isAway
    this.#jump.toggleAttribute('data-unseen', hasUnseen)
    this.#jump.ariaLabel = hasUnseen ? 'Jump to latest: there is new text' : 'Jump to latest'
  }
}

/**
 * Puts an element elsewhere, where possible without its losing focus, selection and animations.
 *
 * @param {HTMLElement} element
 * @param {HTMLElement & {moveBefore?: (node: Node, child: Node | null) => void}} parent
 * @param {Element | null} place
 */
function move(element, parent, place) {
  const isNew = !element.isConnected
  const selection = isNew ? null : selectionIn(element)
  const focused = element.contains(document.activeElement) ? document.activeElement : null
  if (isNew || !parent.moveBefore) parent.insertBefore(element, place)
  else parent.moveBefore(element, place)
  if (selection) document.getSelection()?.setBaseAndExtent(...selection)
  if (focused instanceof HTMLElement && focused !== document.activeElement) {
    focused.focus({ preventScroll: true })
  }
}

/**
 * @param {HTMLElement} element
 * @returns {[Node, number, Node, number] | null} the selection, if some of it is in there
 */
function selectionIn(element) {
  const selection = document.getSelection()
  // Unlike `isCollapsed` and `containsNode`, these ask for no layout.
  if (selection?.type !== 'Range' || !selection.getRangeAt(0).intersectsNode(element)) return null
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection
  return anchorNode && focusNode ? [anchorNode, anchorOffset, focusNode, focusOffset] : null
}

/**
 * @param {HTMLButtonElement} button says for a while that it was done
 * @param {string} text
 */
async function copyFrom(button, text) {
  const copied = await copyText(text)
  const use = button.querySelector('use')
  const before = button.dataset.label ?? button.ariaLabel ?? button.textContent?.trim() ?? ''
  const label = button.querySelector('[data-part="label"]')
  button.dataset.label = before
  /**
   * @param {string} words
   * @param {string} icon
   */
  const say = (words, icon) => {
    if (label) label.textContent = words
    else button.ariaLabel = button.title = words
    use?.setAttribute('href', icon)
  }
  button.dataset.copied = String(copied)
  say(copied ? 'Copied' : 'Could not copy', copied ? '#icon-check' : '#icon-alert')
  setTimeout(() => {
    delete button.dataset.copied
    say(before, '#icon-copy')
  }, COPIED)
}
