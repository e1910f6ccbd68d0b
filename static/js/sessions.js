import { call, callAll } from './callbacks.js'
import { Refused, sentence } from './errors.js'
import { serverUrl } from './server-url.js'
import { HttpTransport } from './transport-http.js'

/**
 * A conversation as the server lists it.
 *
 * @typedef {object} SessionEntry
 * @property {string} session_id
 * @property {string} title
 * @property {string} created_at ISO 8601
 * @property {string} updated_at ISO 8601
 * @property {number} message_count
 * @property {string} [snippet] In a search, some text of the session around a word of the query.
 * @property {boolean} [active] an answer is being made now
 */

/**
 * @typedef {object} SessionsSnapshot
 * @property {readonly Readonly<SessionEntry>[]} sessions newest first
 * @property {string} query what is searched for; empty: nothing, all are listed
 * @property {boolean} loading
 * @property {string | null} error what failed last: a sentence for people
 * @property {boolean} more the server has more of them: `more()` brings them
 */

/** Sessions asked for at a time. */
const PAGE = 50

/** The most that the server gives at a time. */
const MOST = 200

/** The list of all conversations, or of those that a search finds. */
export class SessionList {
  #base
  #http
  #onRemoved
  /** @type {Readonly<SessionsSnapshot>} */
  #snapshot = Object.freeze({
    sessions: Object.freeze([]),
    query: '',
    loading: false,
    error: null,
    more: false,
  })
  /** @type {Set<() => void>} */
  #listeners = new Set()
  /** @type {string | null} where the next page begins */
  #next = null
  /** The number of the newest request: what older ones bring is outdated. */
  #newest = 0
  #wanted = false
  /** @type {Promise<void> | null} */
  #touching = null
  #touched = false

  /**
   * @param {object} [options]
   * @param {string | URL} [options.base] where the server is
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {(session_id: string) => void} [options.onRemoved] it is deleted at the server
   */
  constructor({ base, fetch, onRemoved = () => {} } = {}) {
    this.#base = base
    this.#onRemoved = onRemoved
    this.#http = new HttpTransport({ base, fetch })
  }

  getSnapshot = () => this.#snapshot

  /**
   * @param {() => void} listener called after every change
   * @returns {() => void} unsubscribe
   */
  subscribe = (listener) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Brings the list up to date, as far as it is shown. From the first time on the client does so by
   * itself when a conversation has changed.
   *
   * @returns {Promise<void>} never rejects: `error` says what failed
   */
  load() {
    this.#wanted = true
    return this.#fetch(Math.max(PAGE, this.#snapshot.sessions.length), null)
  }

  /**
   * Lists only what has these words in its title or its messages.
   *
   * @param {string} query empty: all again
   * @returns {Promise<void>}
   */
  search(query) {
    this.#wanted = true
    this.#update({ query: query.trim() })
    return this.#fetch(PAGE, null)
  }

  /**
   * Brings the next page, if there is one.
   *
   * @returns {Promise<void>}
   */
  async more() {
    if (this.#next !== null && !this.#snapshot.loading) await this.#fetch(PAGE, this.#next)
  }

  /**
   * Gives a conversation another title; it is shown at once, and taken back if the server refuses.
   *
   * @param {string} session_id
   * @param {string} title
   * @returns {Promise<boolean>} whether it was done; never rejects
   */
  rename(session_id, title) {
    const before = this.#snapshot.sessions.find((session) => session.session_id === session_id)
    /** @param {string} [name] */
    const show = (name) => {
      if (name === undefined) return
      const sessions = this.#snapshot.sessions.map((session) =>
        session.session_id === session_id ? Object.freeze({ ...session, title: name }) : session,
      )
      this.#update({ sessions: Object.freeze(sessions) })
    }
    show(title)
    return this.#command(
      'rename',
      this.#http.call(path(session_id), {
        method: 'PATCH',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ title }),
      }),
      () => show(before?.title),
    )
  }

  /**
   * Deletes a conversation; an answer that is being made in it is stopped first.
   *
   * @param {string} session_id
   * @returns {Promise<boolean>} whether it is gone; never rejects
   */
  async remove(session_id) {
    const index = this.#snapshot.sessions.findIndex((one) => one.session_id === session_id)
    const before = this.#snapshot.sessions[index]
    const others = this.#snapshot.sessions.filter((one) => one !== before)
    this.#update({ sessions: Object.freeze(others) })
    const gone = this.#http.call(path(session_id), { method: 'DELETE' }).catch((error) => {
      if (!(error instanceof Refused && error.code === 'not_found')) throw error
    })
    const isGone = await this.#command('delete', gone, () => {
      if (!before || this.#snapshot.sessions.some((one) => one.session_id === session_id)) return
      this.#update({ sessions: Object.freeze(this.#snapshot.sessions.toSpliced(index, 0, before)) })
    })
    if (isGone) call(this.#onRemoved, session_id)
    return isGone
  }

  /**
   * Where a conversation can be downloaded as a file.
   *
   * @param {string} session_id
   * @param {'md' | 'json'} format
   * @returns {string}
   */
  exportUrl(session_id, format) {
    return serverUrl(`${path(session_id)}/export.${format}`, this.#base).href
  }

  /** A conversation has changed. Requests at once are one, and one more for what came meanwhile. */
  touch() {
    if (!this.#wanted) return
    this.#touched = true
    this.#touching ??= this.#bringUpToDate()
  }

  async #bringUpToDate() {
    await Promise.resolve() // what happens in the same tick is one change
    try {
      while (this.#touched) {
        this.#touched = false
        await this.load()
      }
    } finally {
      this.#touching = null
    }
  }

  /**
   * @param {number} count how many
   * @param {string | null} before null: from the newest on
   */
  async #fetch(count, before) {
    const number = ++this.#newest
    /** @type {Map<string, SessionEntry>} */
    const found = new Map() // one that moves meanwhile comes twice
    let next = before
    let left = count
    this.#update({ loading: true })
    try {
      do {
        const part = await this.#ask(Math.min(MOST, left), next)
        if (number !== this.#newest) return
        for (const one of part.sessions) found.set(one.session_id, one)
        next = part.next ?? null
        left -= MOST
      } while (next !== null && left > 0)
      this.#next = next
      const page = this.#same([...found.values()])
      const shown = new Set(found.keys())
      const kept = before === null ? [] : this.#snapshot.sessions
      this.#update({
        sessions: Object.freeze([...kept.filter((one) => !shown.has(one.session_id)), ...page]),
        more: this.#next !== null,
        loading: false,
        error: null,
      })
    } catch (error) {
      if (number === this.#newest) this.#update({ loading: false, error: sentence(error) })
    }
  }

  /**
   * @param {number} limit
   * @param {string | null} before
   */
  #ask(limit, before) {
    const { query } = this.#snapshot
    const search = new URLSearchParams({ limit: String(limit) })
    if (before !== null) search.set('before', before)
    if (query !== '') search.set('q', query)
    return this.#http.call(`api/sessions?${search}`)
  }

  /**
   * What has not changed is the same object as before.
   *
   * @param {SessionEntry[]} entries
   */
  #same(entries) {
    const known = new Map(this.#snapshot.sessions.map((one) => [one.session_id, one]))
    return entries.map((entry) => {
      const before = known.get(entry.session_id)
      const isSame = before && JSON.stringify(before) === JSON.stringify(entry)
      return isSame ? before : Object.freeze(entry)
    })
  }

  /**
   * @param {string} what
   * @param {Promise<unknown>} call
   * @param {() => void} takeBack
   */
  async #command(what, call, takeBack) {
    try {
      await call
    } catch (error) {
      takeBack()
      this.#update({ error: `Could not ${what} it: ${sentence(error)}` })
      return false
    }
    this.#newest += 1 // a list that was asked for before does not show it
    this.#update({ loading: false, error: null })
    this.touch()
    return true
  }

  /** @param {Partial<SessionsSnapshot>} change */
  #update(change) {
    this.#snapshot = Object.freeze({ ...this.#snapshot, ...change })
    callAll(this.#listeners)
  }
}

/** @param {string} session_id */
const path = (session_id) => `api/sessions/${encodeURIComponent(session_id)}`
