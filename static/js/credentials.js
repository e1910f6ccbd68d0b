/** @typedef {() => string | Promise<string>} TokenSource */

/** How long the function may take to return a token, in milliseconds. */
const TOKEN_TIMEOUT = 10_000

/**
 * The token that a client sends. A function is called for the first token, for the next one before a
 * sign-in expires, and after the server rejected the current one.
 */
export class Credentials {
  #source
  #fetch
  /** @type {string | null} */
  #token = null
  /** @type {Promise<string> | null} */
  #renewing = null

  /**
   * @param {string | TokenSource} source
   * @param {typeof globalThis.fetch} [fetch]
   */
  constructor(source, fetch = globalThis.fetch) {
    this.#source = source
    this.#fetch = fetch.bind(globalThis)
    if (typeof source === 'string') this.#token = source
  }

  /** Whether there can be another token than the current one. */
  get isRenewable() {
    return typeof this.#source === 'function'
  }

  /**
   * Gets the next token; requests at the same time share one call. Rejects with what the function
   * throws, or after 10 s without a token, and keeps the current token then.
   *
   * @returns {Promise<string>}
   */
  renew() {
    this.#renewing ??= this.#next().finally(() => {
      this.#renewing = null
    })
    return this.#renewing
  }

  /**
   * A `fetch` that sends the token, and once more with the next token if the server rejects it.
   *
   * @type {typeof globalThis.fetch}
   */
  fetch = async (resource, init = {}) => {
    const token = this.#token ?? (await this.renew())
    const response = await this.#send(token, resource, init)
    if (response.status !== 401 || !this.isRenewable) return response
    const next = this.#token === token ? await this.renew() : this.#token
    if (next === null || next === token) return response
    response.body?.cancel().catch(() => {})
    return this.#send(next, resource, init)
  }

  async #next() {
    const token = typeof this.#source === 'function' ? await inTime(this.#source()) : this.#source
    this.#token = token
    return token
  }

  /**
   * @param {string} token
   * @param {RequestInfo | URL} resource
   * @param {RequestInit} init
   */
  #send(token, resource, init) {
    const headers = new Headers(init.headers)
    headers.set('Authorization', `Bearer ${token}`)
    return this.#fetch(resource, { ...init, headers })
  }
}

/**
 * A promise that rejects if the token does not come in time.
 *
 * @param {string | Promise<string>} token
 * @returns {Promise<string>}
 */
function inTime(token) {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`no token came within ${TOKEN_TIMEOUT} ms`))
    const timer = setTimeout(late, TOKEN_TIMEOUT)
    Promise.resolve(token).then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
