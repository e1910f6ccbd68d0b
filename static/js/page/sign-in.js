import { signIn, signOut } from '../api.js'
import { Refused, sentence } from '../errors.js'

/** @typedef {import('../api.js').ServerInfo} ServerInfo */

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/**
 * Asks for a token where the server wants one, and offers to sign out where it has taken one.
 *
 * Whoever signs in or out is somebody else: the page begins anew.
 */
export class SignIn {
  #dialog = /** @type {HTMLDialogElement} */ (part('sign-in'))
  #token = /** @type {HTMLInputElement} */ (part('token'))
  #submit = /** @type {HTMLButtonElement} */ (part('sign-in-submit'))
  #problem = part('sign-in-problem')
  #account = part('account')

  constructor() {
    // There is nothing behind it to go back to.
    this.#dialog.addEventListener('cancel', (event) => event.preventDefault())
    part('sign-in-form').addEventListener('submit', (event) => {
      event.preventDefault()
      this.#signIn()
    })
    part('sign-out').addEventListener('click', () => this.#signOut())
  }

  /**
   * @param {ServerInfo} info
   * @returns {boolean} whether the server knows who we are, or does not want to
   */
  check({ auth, principal }) {
    const isIn = auth !== 'token' || principal !== undefined
    this.#account.hidden = auth !== 'token' || principal === undefined
    part('principal').textContent = principal ?? ''
    if (!isIn && !this.#dialog.open) this.#dialog.showModal()
    return isIn
  }

  async #signIn() {
    const token = this.#token.value.trim()
    if (token === '') return
    this.#submit.disabled = true
    this.#say('')
    try {
      await signIn(token)
      this.#token.value = ''
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
