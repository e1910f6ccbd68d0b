import { signIn, signOut } from '../api.js'
import { Refused, sentence } from '../errors.js'

/** @typedef {import('../api.js').ServerInfo} ServerInfo */

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/** How the tabs of one browser tell each other that someone signs in or out. */
const CHANNEL = 'jarvis-stream.account'

/** The channel of all tabs; null if the browser has none, or blocks it together with storage. */
function openChannel() {
  try {
    return new BroadcastChannel(CHANNEL)
  } catch {
    return null
  }
}

/**
 * Asks for a token where the server wants one, and offers to sign out where it has taken one.
 *
 * When the principal changes, in this tab, in another one, or because a sign-in has expired, the page
 * loads again: nothing of the principal before stays in it.
 */
export class SignIn {
  #dialog = /** @type {HTMLDialogElement} */ (part('sign-in'))
  #token = /** @type {HTMLInputElement} */ (part('token'))
  #submit = /** @type {HTMLButtonElement} */ (part('sign-in-submit'))
  #problem = part('sign-in-problem')
  #account = part('account')
  #channel = openChannel()
  #drafts
  /** @type {string | null | undefined} null: signed out; undefined: not known yet */
  #principal
  #isNeeded = false

  /** @param {import('./drafts.js').Drafts} drafts */
  constructor(drafts) {
    this.#drafts = drafts
    // There is nothing behind the dialog to go back to. Chromium closes a dialog on the second
    // Escape whatever `cancel` says, so the key must not reach it, and Android has a gesture.
    this.#dialog.addEventListener('cancel', (event) => event.preventDefault())
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') event.preventDefault()
    })
    this.#dialog.addEventListener('close', () => this.#show())
    part('sign-in-form').addEventListener('submit', (event) => {
      event.preventDefault()
      this.#signIn()
    })
    part('sign-out').addEventListener('click', () => this.#signOut())
    this.#channel?.addEventListener('message', ({ data }) => this.#follow(data))
  }

  /**
   * @param {ServerInfo} info
   * @returns {boolean} whether the server knows the principal, or wants none
   */
  check({ auth, principal }) {
    const isIn = auth !== 'token' || principal !== undefined
    const before = this.#principal
    this.#principal = principal ?? null
    this.#account.hidden = auth !== 'token' || principal === undefined
    part('principal').textContent = principal ?? ''
    this.#isNeeded = !isIn
    if (!isIn) this.#drafts.lock()
    else if (principal !== undefined) this.#drafts.unlock(principal)
    if (typeof before === 'string' && before !== this.#principal) window.location.reload()
    else this.#show()
    return isIn
  }

  #show() {
    if (this.#isNeeded && !this.#dialog.open) this.#dialog.showModal()
  }

  /**
   * Follows what another tab of this browser has done.
   *
   * @param {unknown} principal who has signed in there; null: signed out
   */
  #follow(principal) {
    if (principal === this.#principal) return
    if (principal === null) this.#drafts.clear()
    window.location.reload()
  }

  async #signIn() {
    const token = this.#token.value.trim()
    if (token === '') return
    this.#submit.disabled = true
    this.#say('')
    try {
      const { principal } = await signIn(token)
      this.#token.value = ''
      this.#drafts.unlock(principal)
      this.#channel?.postMessage(principal)
      window.location.reload()
    } catch (error) {
      const isWrong = error instanceof Refused && error.code === 'unauthorized'
      this.#say(isWrong ? 'The server does not take this token.' : sentence(error))
      this.#submit.disabled = false
      this.#token.select()
    }
  }

  async #signOut() {
    try {
      await signOut()
      this.#drafts.clear()
      this.#channel?.postMessage(null)
      window.location.reload()
    } catch (error) {
      part('sign-out-problem').textContent = sentence(error)
    }
  }

  /** @param {string} problem */
  #say(problem) {
    this.#problem.textContent = problem
    this.#problem.hidden = problem === ''
    this.#token.ariaInvalid = problem === '' ? null : 'true'
  }
}
