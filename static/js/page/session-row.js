import { pageLocale } from './format.js'
import { shortTime } from './session-times.js'

/** @typedef {import('../sessions.js').SessionEntry} SessionEntry */

/**
 * What can be done with a conversation of the list.
 *
 * @typedef {object} SessionActions
 * @property {(session_id: string) => string} address of the page that shows it
 * @property {(session_id: string) => void} open shows it
 * @property {(session_id: string, title: string) => void} rename
 * @property {(session: Readonly<SessionEntry>) => void} remove asks first
 * @property {(session_id: string, format: 'md' | 'json') => string} exportUrl
 */

/** One conversation of the list: a link, a menu, and while it is renamed a field. */
export class SessionRow {
  #actions
  /** @type {Readonly<SessionEntry>} */
  #session
  /** While it is moved about in the list: its field loses the focus then, and nobody has left it. */
  isMoved = false

  /**
   * @param {HTMLTemplateElement} template
   * @param {import('./menu.js').Menu} menu
   * @param {SessionActions} actions
   * @param {Readonly<SessionEntry>} session
   */
  constructor(template, menu, actions, session) {
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true))
    this.element = /** @type {HTMLElement} */ (copy.firstElementChild)
    this.link = /** @type {HTMLAnchorElement} */ (this.#part('open'))
    this.#actions = actions
    this.#session = session
    this.link.href = actions.address(session.session_id)
    this.link.addEventListener('click', (event) => {
      // With one of these the browser opens another tab or window.
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return
      event.preventDefault()
      actions.open(session.session_id)
    })
    menu.attach(
      this.#menuButton,
      () => ({
        label: `Options of ${this.#session.title}`,
        links: {
          md: actions.exportUrl(session.session_id, 'md'),
          json: actions.exportUrl(session.session_id, 'json'),
        },
      }),
      (choice) => {
        if (choice === 'rename') this.rename()
        else if (choice === 'delete') actions.remove(this.#session)
      },
    )
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.#endRenaming(true)
      this.link.focus()
    })
    this.#field.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.isComposing) return
      event.preventDefault()
      this.#endRenaming(false)
      this.link.focus()
    })
    this.#field.addEventListener('blur', () => {
      if (!this.isMoved) this.#endRenaming(true)
    })
  }

  /**
   * @param {Readonly<SessionEntry>} session
   * @param {{current: boolean, active: boolean, now: Date}} state `active`: an answer is being made
   */
  show(session, { current, active, now }) {
    this.#session = session
    const { title, updated_at } = session
    const when = /** @type {HTMLTimeElement} */ (this.#part('when'))
    this.#write(this.#part('title'), title)
    this.#write(when, shortTime(Date.parse(updated_at), now, pageLocale()))
    when.dateTime = updated_at
    when.title = new Date(updated_at).toLocaleString(pageLocale())
    when.hidden = active
    this.#part('live').hidden = !active
    this.element.toggleAttribute('data-active', active)
    this.link.ariaCurrent = current ? 'page' : null
    this.#menuButton.ariaLabel = `Options of ${title}`
  }

  /** Asks for another title, in place of the link. Enter and leaving it save, Esc does not. */
  rename() {
    this.#toggleRenaming(true)
    this.#field.value = this.#session.title
    this.#field.ariaLabel = `Title of ${this.#session.title}`
    this.#field.select()
    this.#field.focus()
  }

  /** @param {boolean} save */
  #endRenaming(save) {
    if (this.#form.hidden) return
    this.#toggleRenaming(false)
    const title = this.#field.value.trim()
    const { session_id, title: before } = this.#session
    if (save && title !== '' && title !== before) this.#actions.rename(session_id, title)
  }

  /** @param {boolean} renaming */
  #toggleRenaming(renaming) {
    this.#form.hidden = !renaming
    this.link.hidden = renaming
    this.#menuButton.hidden = renaming
  }

  get #form() {
    return this.#part('rename')
  }

  get #field() {
    return /** @type {HTMLInputElement} */ (this.#part('name'))
  }

  get #menuButton() {
    return this.#part('menu')
  }

  /**
   * @param {HTMLElement} element
   * @param {string} text
   */
  #write(element, text) {
    if (element.textContent !== text) element.textContent = text
  }

  /** @param {string} name */
  #part(name) {
    return /** @type {HTMLElement} */ (this.element.querySelector(`[data-part="${name}"]`))
  }
}
