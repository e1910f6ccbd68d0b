/** What a session id may look like (protocol version 1). */
const VALID = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * The conversation in the page's address, `#session=…`: a reload comes back to it, a copy of the
 * address shows it in another tab, and back and forward go from one to another.
 */
export class Address {
  #window

  /** @param {Window} [window] */
  constructor(window = globalThis.window) {
    this.#window = window
  }

  /** @returns {string | undefined} undefined: none, the page begins a new conversation */
  get session() {
    const id = new URLSearchParams(this.#window.location.hash.slice(1)).get('session')
    return id !== null && VALID.test(id) ? id : undefined
  }

  /**
   * The address of a conversation.
   *
   * @param {string} [id] none: a new one
   */
  hrefOf(id) {
    const { pathname, search } = this.#window.location
    return pathname + search + (id === undefined ? '' : `#session=${encodeURIComponent(id)}`)
  }

  /**
   * The page shows this conversation from now on; back returns to the one before.
   *
   * @param {string} [id] none: a new one
   */
  push(id) {
    if (id !== this.session) this.#window.history.pushState(null, '', this.hrefOf(id))
  }

  /**
   * The conversation that is shown is this one, and was all the time: a new one has begun.
   *
   * @param {string} id
   */
  name(id) {
    if (id !== this.session) this.#window.history.replaceState(null, '', this.hrefOf(id))
  }

  /** @param {(id: string | undefined) => void} listener called when the reader goes elsewhere */
  subscribe(listener) {
    // Some browsers tell of an address typed by hand only in this event, others in both.
    this.#window.addEventListener('hashchange', () => listener(this.session))
    this.#window.addEventListener('popstate', () => listener(this.session))
  }
}
