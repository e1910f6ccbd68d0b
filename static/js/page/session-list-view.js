import { SessionRow } from './session-row.js'
import { groupOf } from './session-times.js'

/** @typedef {import('../sessions.js').SessionEntry} SessionEntry */

/** The conversations, under headings that say when they were. */
export class SessionListView {
  #element
  #menu
  #actions
  #template = /** @type {HTMLTemplateElement} */ (document.getElementById('session'))
  /** @type {Map<string, SessionRow>} */
  #rows = new Map()
  /** @type {Map<string, {section: HTMLElement, list: HTMLElement}>} */
  #groups = new Map()

  /**
   * @param {HTMLElement} element
   * @param {import('./menu.js').Menu} menu
   * @param {import('./session-row.js').SessionActions} actions
   */
  constructor(element, menu, actions) {
    this.#element = element
    this.#menu = menu
    this.#actions = actions
    element.addEventListener('keydown', (event) => this.#walk(event))
  }

  /**
   * @param {readonly Readonly<SessionEntry>[]} sessions newest first
   * @param {{current: string, isActive: (session: Readonly<SessionEntry>) => boolean, now?: Date}}
   *   state `current`: the one that is shown
   */
  show(sessions, { current, isActive, now = new Date() }) {
    const focused = document.activeElement
    this.#forget(sessions)
    /** @type {Map<string, HTMLElement[]>} */
    const grouped = new Map()
    for (const session of sessions) {
      const { session_id, updated_at } = session
      const row = this.#row(session)
      row.show(session, { current: session_id === current, active: isActive(session), now })
      const group = groupOf(Date.parse(updated_at), now)
      const rows = grouped.get(group) ?? []
      grouped.set(group, rows)
      rows.push(row.element)
    }
    const held = this.#rowOf(focused)
    if (held) held.isMoved = true
    for (const [name, { section }] of this.#groups) if (!grouped.has(name)) section.remove()
    const sections = Array.from(grouped, ([name, rows]) => {
      const { section, list } = this.#group(name)
      arrange(list, rows)
      return section
    })
    arrange(this.#element, sections)
    // An element that is moved loses the focus.
    if (focused instanceof HTMLElement && this.#element.contains(focused)) focused.focus()
    if (held) held.isMoved = false
  }

  /**
   * @param {number} index in the order of the list
   * @returns {HTMLElement | undefined}
   */
  link(index) {
    return this.#links()[index]
  }

  /** Renames the conversation that has the focus; `false` when none has it. */
  renameFocused() {
    const row = this.#rowOf(document.activeElement)
    row?.rename()
    return row !== undefined
  }

  /**
   * The link to focus when this conversation goes: the next one's, else the one's before.
   *
   * @param {string} session_id
   * @returns {HTMLElement | undefined}
   */
  beside(session_id) {
    const links = this.#links()
    const row = this.#rows.get(session_id)
    const at = row ? links.indexOf(row.link) : -1
    return links[at + 1] ?? links[at - 1]
  }

  /** @param {readonly Readonly<SessionEntry>[]} sessions */
  #forget(sessions) {
    const ids = new Set(sessions.map(({ session_id }) => session_id))
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue
      row.element.remove()
      this.#rows.delete(id)
    }
  }

  /** @param {Readonly<SessionEntry>} session */
  #row(session) {
    let row = this.#rows.get(session.session_id)
    if (!row) {
      row = new SessionRow(this.#template, this.#menu, this.#actions, session)
      this.#rows.set(session.session_id, row)
    }
    return row
  }

  /** @param {string} name */
  #group(name) {
    let group = this.#groups.get(name)
    if (!group) {
      const section = document.createElement('section')
      const heading = document.createElement('h3')
      const list = document.createElement('ul')
      heading.textContent = name
      section.append(heading, list)
      group = { section, list }
      this.#groups.set(name, group)
    }
    return group
  }

  #links() {
    const links = this.#element.querySelectorAll('[data-part="open"]')
    return /** @type {HTMLElement[]} */ ([...links])
  }

  /** @param {Element | null} element */
  #rowOf(element) {
    return [...this.#rows.values()].find((row) => row.element.contains(element))
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    const links = this.#links()
    const at = links.indexOf(/** @type {HTMLElement} */ (event.target))
    const next = step === undefined || at < 0 ? undefined : links[at + step]
    if (!next) return
    event.preventDefault()
    next.focus()
  }
}

/**
 * Puts the elements into this order at the beginning of their parent, and moves only those that
 * are out of place.
 *
 * @param {HTMLElement} parent
 * @param {readonly HTMLElement[]} elements
 */
function arrange(parent, elements) {
  let place = parent.firstElementChild
  for (const element of elements) {
    if (element === place) place = place.nextElementSibling
    else parent.insertBefore(element, place)
  }
}
