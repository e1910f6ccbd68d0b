/** @typedef {import('../client.js').ChatClient} ChatClient */
/** @typedef {ReturnType<ChatClient['getSnapshot']>['connection']} ConnectionState */

/** A trouble that is over within this time is not worth being spoken of, in ms. */
const BLIP = 1000

/** How often the seconds to the next try are looked at, in ms. */
const TICK = 250

/** @type {Record<ConnectionState, string>} */
const sentences = {
  connecting: 'Connecting …',
  websocket: 'Live over WebSocket',
  http: 'Live over HTTP',
  reconnecting: 'Reconnecting …',
  offline: 'Offline',
}

/** @type {Partial<Record<ConnectionState, string>>} */
const troubles = {
  reconnecting: 'The connection is lost. Reconnecting.',
  offline: 'The server cannot be reached. This page goes on by itself once it can.',
}

/**
 * @param {number | null} retryAt ms since the epoch
 * @param {number} now ms since the epoch
 * @returns {string} nothing when it is not known, or being tried
 */
export function countdown(retryAt, now) {
  const seconds = retryAt === null ? 0 : Math.ceil((retryAt - now) / 1000)
  return seconds > 0 ? `Next try in ${seconds} s.` : ''
}

/**
 * The state of the connection: always a few words, more in plain sight where the server is out of
 * reach, and something to hear if a trouble lasts.
 */
export class ConnectionView {
  #client
  #elements
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #counting
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #speaking
  /** @type {ConnectionState | null} */
  #state = null
  #told = false

  /**
   * @param {ChatClient} client
   * @param {object} elements
   * @param {HTMLElement} elements.words gets the state as `data-state`
   * @param {HTMLElement} elements.trouble is shown while the server is out of reach
   * @param {HTMLElement} elements.text in it
   * @param {HTMLElement} elements.retry a button in it that tries again now
   * @param {HTMLElement} elements.spoken a live region that is not seen
   */
  constructor(client, elements) {
    this.#client = client
    this.#elements = elements
    elements.retry.addEventListener('click', () => void client.connect())
    client.on('connection', () => this.#show())
    this.#show()
  }

  #show() {
    const { connection: state } = this.#client.getSnapshot()
    if (state === this.#state) return
    this.#state = state
    this.#elements.words.dataset.state = state
    this.#elements.words.textContent = sentences[state]
    this.#elements.trouble.hidden = state !== 'offline'
    clearInterval(this.#counting)
    if (state === 'offline') {
      this.#count()
      this.#counting = setInterval(() => this.#count(), TICK)
    }
    clearTimeout(this.#speaking)
    this.#speaking = setTimeout(() => this.#speak(state), BLIP)
  }

  #count() {
    const text = `${troubles.offline} ${countdown(this.#client.getSnapshot().retry_at, Date.now())}`
    if (this.#elements.text.textContent !== text) this.#elements.text.textContent = text
  }

  /**
   * That all is well is said only to those who were told that it is not.
   *
   * @param {ConnectionState} state
   */
  #speak(state) {
    const trouble = troubles[state]
    if (trouble) this.#elements.spoken.textContent = trouble
    else if (this.#told) this.#elements.spoken.textContent = `${sentences[state]} again.`
    this.#told = Boolean(trouble)
  }
}
