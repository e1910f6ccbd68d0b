const PREFIX = 'jarvis-stream.draft.'
const LOCKED = 'jarvis-stream.drafts-locked'
const PRINCIPAL = 'jarvis-stream.drafts-of'

/**
 * The unsent messages of this tab, by session. They survive a reload and a crash of the tab, where
 * the browser allows storage; else they last as long as the page.
 *
 * After a sign-in has expired they stay hidden until the same principal has signed in again.
 */
export class Drafts {
  #storage
  /** @type {Map<string, string>} */
  #values = new Map()

  /** @param {{sessionStorage: Storage}} [window] */
  constructor(window = globalThis.window) {
    /** @type {Storage | null} */
    this.#storage = null
    try {
      this.#storage = window.sessionStorage // with storage blocked, this throws
      for (let index = 0; index < this.#storage.length; index += 1) {
        const key = this.#storage.key(index)
        if (key === null) continue
        this.#values.set(key, this.#storage.getItem(key) ?? '')
      }
    } catch {
      // The drafts last as long as the page.
    }
  }

  /** @param {string} session empty: the conversation that has not begun */
  get(session) {
    return this.#isLocked ? '' : (this.#values.get(PREFIX + session) ?? '')
  }

  /**
   * @param {string} session
   * @param {string} text empty: there is no draft
   */
  set(session, text) {
    // An empty field before the sign-in does not delete a draft that is hidden.
    if (!this.#isLocked) this.#write(PREFIX + session, text)
  }

  /** Hides all drafts until `unlock`, also in the next page of this tab. */
  lock() {
    this.#write(LOCKED, 'yes')
  }

  /**
   * Shows the drafts to the principal who wrote them; deletes those of anyone else.
   *
   * @param {string} principal
   */
  unlock(principal) {
    const before = this.#values.get(PRINCIPAL)
    if (before !== undefined && before !== principal) this.clear()
    this.#write(PRINCIPAL, principal)
    this.#write(LOCKED, '')
  }

  /** Deletes all drafts. */
  clear() {
    for (const key of [...this.#values.keys()]) if (key.startsWith(PREFIX)) this.#write(key, '')
  }

  get #isLocked() {
    return this.#values.has(LOCKED)
  }

  /**
   * @param {string} key
   * @param {string} value
   */
  #write(key, value) {
    if ((this.#values.get(key) ?? '') === value) return
    if (value === '') this.#values.delete(key)
    else this.#values.set(key, value)
    try {
      if (value === '') this.#storage?.removeItem(key)
      else this.#storage?.setItem(key, value)
    } catch {
      // The storage is full: the draft lasts as long as the page.
    }
  }
}
