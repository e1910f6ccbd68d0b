import { ScrollAnchor } from './scroll-anchor.js'

/** How near to the end counts as being there, in CSS pixels. */
const NEAR = 40

/** After the last `scroll` event the reader is taken to scroll for so long. Milliseconds. */
const SCROLLING = 400

/** Keys that scroll away from the end, and keys that may lead back to it. */
const UP = new Set(['ArrowUp', 'PageUp', 'Home'])
const DOWN = new Set(['ArrowDown', 'PageDown', 'End', ' '])

/**
 * Keeps the end of a growing text in view, for as long as the reader is there, and what the reader
 * sees where it is, as soon as that is something else.
 *
 * Only the reader's own doing pauses it: a wheel, a finger, a key, the scroll bar, selecting text.
 * A `scroll` event by itself does not, for growing text and a growing keyboard cause those too.
 */
export class EndFollower {
  #scroller
  #onChange
  #following = true
  #unseen = false
  /** Not followed, by the reader's own doing: who comes back to the end is followed again. */
  #mayReturn = false
  /** Where the text stood when a finger or a mouse button went down on it; null: none is. */
  #heldAt = /** @type {number | null} */ (null)
  #lastTop = 0
  #lastScroll = -SCROLLING
  #anchor

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} content what grows in it
   * @param {() => void} onChange `isAway` or `hasUnseen` may have changed
   */
  constructor(scroller, content, onChange) {
    this.#scroller = scroller
    this.#onChange = onChange
    this.#anchor = new ScrollAnchor(scroller, content)
    const passive = { passive: true }
    scroller.addEventListener('wheel', ({ deltaY }) => this.#turn(deltaY < 0), passive)
    scroller.addEventListener('keydown', (event) => this.#press(event))
    scroller.addEventListener('touchstart', () => this.#hold(), passive)
    scroller.addEventListener('pointerdown', ({ pointerType, target }) => {
      // A button below growing text must stay under the mouse until it is released.
      const isOnControl = target instanceof Element && target.closest('button, a') !== null
      if (pointerType === 'mouse' && !isOnControl) this.#hold()
    })
    for (const type of ['pointerup', 'touchend', 'touchcancel']) {
      window.addEventListener(type, () => this.#release(), passive)
    }
    scroller.addEventListener('scroll', () => this.#look(), passive)
    const sizes = new ResizeObserver(() => this.keep())
    sizes.observe(scroller)
    sizes.observe(content)
  }

  /** Whether the reader is somewhere else than at the end. */
  get isAway() {
    return !this.#following && !this.#isAtEnd
  }

  /** Whether something has come that the reader, being away, has not seen. */
  get hasUnseen() {
    return this.#unseen && this.isAway
  }

  /** Whether what is above the view is less than its height, and will soon have been read. */
  get isNearStart() {
    return this.#scroller.scrollTop < this.#scroller.clientHeight
  }

  /** Whether the reader is scrolling: a change above the view would stop the movement. */
  get isScrolling() {
    return performance.now() - this.#lastScroll < SCROLLING
  }

  /** Goes to the end, and follows it again. */
  follow() {
    this.#set(true)
    this.keep()
  }

  /** Stays where it is: the reader is busy there. */
  pause() {
    this.#set(false)
    this.#mayReturn = true
  }

  /** The reader is no longer busy. Who is at the end is followed again. */
  resume() {
    if (this.#isAtEnd) this.follow()
  }

  /** Something has been added at the end. It is kept in view once the browser has laid it out. */
  grown() {
    if (this.#following || this.#unseen) return
    this.#unseen = true
    this.#onChange()
  }

  /**
   * Keeps the end in view if it is followed, and else what the reader sees. Runs after every change
   * of the layout, before the browser paints it.
   */
  keep() {
    // Text that moves under a finger, or away from a selection that is being made, is a nuisance.
    if (!this.#following || this.#heldAt !== null) {
      this.#stay()
      return this.#onChange()
    }
    this.#scroller.scrollTop = this.#scroller.scrollHeight
    this.#lastTop = this.#scroller.scrollTop
  }

  /** Keeps what the reader sees where it is. */
  #stay() {
    // To scroll now would end a movement that goes on, and browsers are good at this in motion; at
    // the very top they are not, and no movement goes on.
    if (this.isScrolling && this.#scroller.scrollTop > 0) return this.#anchor.pick()
    this.#anchor.restore()
    const { scrollTop } = this.#scroller
    if (this.#heldAt !== null) this.#heldAt += scrollTop - this.#lastTop
    this.#lastTop = scrollTop // so that its event does not count as the reader's
  }

  get #isAtEnd() {
    return this.#fromEnd < NEAR
  }

  /** The distance between the view and the end, in CSS pixels. */
  get #fromEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller
    return scrollHeight - scrollTop - clientHeight
  }

  /** @param {boolean} up */
  #turn(up) {
    this.#lastScroll = performance.now()
    // At once: before the browser has scrolled, the next piece of text would take us back.
    if (up && this.#scroller.scrollTop > 0) this.#set(false)
    this.#mayReturn = !up && !this.#following
  }

  /** @param {KeyboardEvent} event */
  #press({ key, shiftKey, target }) {
    if (target instanceof HTMLTextAreaElement) return
    if (UP.has(key) || (key === ' ' && shiftKey)) this.#turn(true)
    else if (DOWN.has(key)) this.#turn(false)
  }

  #hold() {
    this.#anchor.pick()
    this.#heldAt = this.#scroller.scrollTop
  }

  #release() {
    if (this.#heldAt === null) return
    const isMoved = this.#scroller.scrollTop !== this.#heldAt
    this.#heldAt = null
    if (isMoved || this.#hasSelection) this.#set(this.#isAtEnd)
    this.#mayReturn = !this.#following
    this.keep()
  }

  get #hasSelection() {
    const selection = document.getSelection()
    return !!selection && !selection.isCollapsed && this.#scroller.contains(selection.anchorNode)
  }

  #look() {
    const { scrollTop } = this.#scroller
    const isByReader = scrollTop !== this.#lastTop && !this.#isByBrowser
    const isDown = isByReader && scrollTop > this.#lastTop
    if (isByReader) {
      this.#lastScroll = performance.now()
      if (!this.#following || this.#heldAt !== null) this.#anchor.pick()
    } else if (this.#heldAt !== null) {
      this.#heldAt += scrollTop - this.#lastTop
    }
    this.#lastTop = scrollTop
    // After a key or a wheel that leads away, an event of our own scrolling may still be on its
    // way: only who has left can return.
    if (!this.#following && !this.#isAtEnd) this.#mayReturn = true
    else if (this.#mayReturn && this.#heldAt === null && isDown) this.#set(true)
    this.#onChange()
  }

  /**
   * Whether the view shows what it showed before: the browser has scrolled because the height of
   * something above the view changed. A layout during a `scroll` event causes this, too.
   */
  get #isByBrowser() {
    const isFollowed = this.#following && this.#heldAt === null
    if (isFollowed) return this.#fromEnd < 1
    return Math.abs(this.#scroller.scrollTop - this.#anchor.wanted) < 1
  }

  /** @param {boolean} following */
  #set(following) {
    if (following) {
      this.#mayReturn = false
      this.#unseen = false
    }
    if (following === this.#following) return
    this.#following = following
    if (!following) this.#anchor.pick()
    this.#onChange()
  }
}
