import { Drawer } from './drawer.js'
import { Menu } from './menu.js'
import { SessionListView } from './session-list-view.js'

/** @typedef {import('../client.js').ChatClient} ChatClient */
/** @typedef {import('../sessions.js').SessionEntry} SessionEntry */

/** How long the typing has to rest before it is searched for, in ms. */
const TYPING = 200

/** How soon to look again after an answer that is made in a conversation not shown, in ms. */
const ACTIVE = 4000

/** How soon to look again for the shown conversation, which the server is about to list, in ms. */
const BEGINNING = 500

/** How often the times beside the conversations move on, in ms. */
const MINUTE = 60_000

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

/** The conversations: to open, to search, to rename, to download, to delete. */
export class Sidebar {
  #client
  #show
  #forget
  #search = /** @type {HTMLInputElement} */ (part('search'))
  #found = part('search-status')
  #empty = part('sessions-empty')
  #failed = part('sessions-error')
  #more = part('sessions-more')
  #confirm
  #drawer
  #list
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #typing
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #looking
  #painting = 0
  /** What the list depends on, besides the list itself. */
  #shown = ''
  #announced = ''

  /**
   * @param {ChatClient} client
   * @param {object} page
   * @param {(session_id?: string) => void} page.show shows that conversation, or a new one
   * @param {(session_id: string) => void} page.forget that conversation is gone
   * @param {(session_id: string) => string} page.address of the page that shows it
   * @param {import('./confirm-dialog.js').ConfirmDialog} page.confirm
   * @param {readonly HTMLElement[]} page.behind what the sidebar covers on a phone
   */
  constructor(client, { show, forget, address, confirm, behind }) {
    this.#client = client
    this.#confirm = confirm
    this.#show = show
    this.#forget = forget
    this.#drawer = new Drawer(
      {
        drawer: part('sidebar'),
        toggle: part('sidebar-toggle'),
        close: part('sidebar-close'),
        backdrop: part('backdrop'),
        behind,
      },
      window.matchMedia('(width <= 48rem)'),
    )
    this.#list = new SessionListView(part('sessions'), new Menu(part('session-menu')), {
      address,
      open: (session_id) => this.#go(session_id),
      rename: (session_id, title) => void client.sessions.rename(session_id, title),
      remove: (session) => void this.#remove(session),
      exportUrl: (session_id, format) => client.sessions.exportUrl(session_id, format),
    })
    this.#listen()
    client.sessions.subscribe(() => this.#paintSoon())
    client.subscribe(() => {
      const { session_id, busy } = client.getSnapshot()
      const shown = `${session_id} ${busy}`
      if (shown === this.#shown) return // a piece of an answer changes nothing here
      this.#shown = shown
      this.#paintSoon()
    })
    setInterval(() => this.#paintSoon(), MINUTE)
    this.#refresh()
    this.#paint()
  }

  /** Shows a new conversation. */
  startNew() {
    this.#go(undefined)
  }

  /** Lets the reader search. */
  search() {
    this.#drawer.open()
    this.#search.focus()
    this.#search.select()
  }

  /** Renames the conversation that has the focus; `false` when none has it. */
  renameFocused() {
    return this.#list.renameFocused()
  }

  #listen() {
    part('new').addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return
      event.preventDefault()
      this.startNew()
    })
    this.#search.addEventListener('input', () => {
      clearTimeout(this.#typing)
      this.#typing = setTimeout(() => this.#find(), TYPING)
    })
    this.#search.addEventListener('keydown', (event) => this.#pressInSearch(event))
    this.#more.addEventListener('click', () => void this.#showMore())
    part('sessions-retry').addEventListener('click', () => this.#refresh())
    window.addEventListener('focus', () => this.#refresh())
    document.addEventListener('visibilitychange', () => this.#refresh())
  }

  #refresh() {
    if (!document.hidden) void this.#client.sessions.load()
  }

  async #showMore() {
    const { length } = this.#client.sessions.getSnapshot().sessions
    await this.#client.sessions.more()
    this.#paint()
    this.#list.link(length)?.focus() // the button may be gone
  }

  #find() {
    clearTimeout(this.#typing)
    void this.#client.sessions.search(this.#search.value)
  }

  /** @param {KeyboardEvent} event */
  #pressInSearch(event) {
    if (event.isComposing) return
    if (event.key === 'Escape' && this.#search.value !== '') {
      event.preventDefault()
      this.#search.value = ''
      this.#find()
    } else if (event.key === 'Enter') {
      this.#find()
    } else if (event.key === 'ArrowDown') {
      event.preventDefault()
      this.#list.link(0)?.focus()
    }
  }

  /** @param {string | undefined} session_id */
  #go(session_id) {
    this.#drawer.giveWay()
    this.#show(session_id)
  }

  /** @param {Readonly<SessionEntry>} session */
  async #remove({ session_id, title }) {
    const yes = await this.#confirm.ask({
      title: 'Delete this chat?',
      text: `“${title}” will be gone for good, with all its messages.`,
      yes: 'Delete',
    })
    if (!yes) return
    const next = this.#list.beside(session_id) ?? part('new')
    const removed = this.#client.sessions.remove(session_id)
    next.focus()
    if (await removed) this.#forget(session_id)
  }

  #paintSoon() {
    this.#painting ||= requestAnimationFrame(() => {
      this.#painting = 0
      this.#paint()
    })
  }

  #paint() {
    const { sessions, query, loading, error, more } = this.#client.sessions.getSnapshot()
    const { session_id, busy } = this.#client.getSnapshot()
    /** @param {Readonly<SessionEntry>} session */
    const isActive = (session) =>
      session.session_id === session_id ? busy : Boolean(session.active)
    this.#list.show(sessions, { current: session_id, isActive })
    const nothing = sessions.length === 0 && !loading && error === null
    this.#empty.hidden = !nothing
    this.#empty.textContent = query ? `No chat has “${query}” in it.` : 'Your chats will be here.'
    this.#failed.hidden = error === null
    part('sessions-problem').textContent = error
    this.#more.hidden = !more
    if (!loading && error === null) this.#announce(query, sessions.length, more)
    const isListed = query !== '' || sessions.some((one) => one.session_id === session_id)
    const isElsewhere = sessions.some((one) => one.session_id !== session_id && one.active)
    this.#lookAgain(busy && !isListed ? BEGINNING : isElsewhere ? ACTIVE : null)
  }

  /**
   * @param {string} query
   * @param {number} count
   * @param {boolean} more
   */
  #announce(query, count, more) {
    const found = `${count}${more ? ' or more' : ''} ${count === 1 ? 'chat' : 'chats'} found`
    const said = query === '' ? '' : found
    if (said === this.#announced) return
    this.#announced = said
    this.#found.textContent = said
  }

  /**
   * Loads the list again after a while: nothing tells the page when an answer ends in a conversation
   * that is not shown, or when the history has saved the first question of a new one.
   *
   * @param {number | null} delay in ms; null: nothing is to be waited for
   */
  #lookAgain(delay) {
    if (delay === null) {
      clearTimeout(this.#looking)
      this.#looking = undefined
    }
    if (delay === null || this.#looking) return
    this.#looking = setTimeout(() => {
      this.#looking = undefined
      this.#refresh()
      this.#paintSoon()
    }, delay)
  }
}
