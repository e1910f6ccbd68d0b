import { newId } from './ids.js'

/** The most responses that all tabs hold open at a time: a browser has six HTTP/1.1 connections to a host. */
export const MAX_HELD = 3

/** How often a tab repeats how many responses it holds, in milliseconds. */
const REPEAT_INTERVAL = 30_000

/** After this time without a message, a tab counts as closed: timers of hidden tabs run once a minute. */
const FORGET_AFTER = 90_000

/**
 * Counts the responses that the tabs of a browser hold open, through a BroadcastChannel. Without one
 * (outside a browser) it knows only its own.
 */
export class OpenResponses {
  #name
  #Channel
  #now
  #id = newId()
  #own = 0
  /** @type {Map<string, {count: number, at: number}>} */
  #others = new Map()
  /** @type {BroadcastChannel | null} open while this tab holds a response */
  #channel = null
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer

  /**
   * @param {string} host
   * @param {() => number} [now] milliseconds
   * @param {typeof globalThis.BroadcastChannel} [Channel]
   */
  constructor(
    host,
    now = Date.now,
    Channel = globalThis.window === undefined ? undefined : globalThis.BroadcastChannel,
  ) {
    this.#name = `jarvis-stream ${host}`
    this.#now = now
    this.#Channel = Channel
  }

  /** Whether so many are open that other requests may find no connection. */
  get isCrowded() {
    const before = this.#now() - FORGET_AFTER
    let total = this.#own
    for (const { count, at } of this.#others.values()) if (at > before) total += count
    return total > MAX_HELD
  }

  opened() {
    this.#own += 1
    if (this.#own === 1) this.#join()
    this.#tell(this.#own === 1)
  }

  closed() {
    this.#own -= 1
    this.#tell()
    if (this.#own === 0) this.#leave()
  }

  #join() {
    if (!this.#Channel) return
    try {
      this.#channel = new this.#Channel(this.#name)
    } catch {
      return // a browser that blocks storage may block it, too
    }
    this.#channel.onmessage = ({ data }) => {
      const { id, count, isNew } = data ?? {}
      if (typeof id !== 'string' || typeof count !== 'number') return
      if (count > 0) this.#others.set(id, { count, at: this.#now() })
      else this.#others.delete(id)
      if (isNew) this.#tell()
    }
    this.#timer = setInterval(() => this.#tell(), REPEAT_INTERVAL)
  }

  #leave() {
    clearInterval(this.#timer)
    this.#channel?.close()
    this.#channel = null
    this.#others.clear()
  }

  /** @param {boolean} [isNew] the others reply with their own numbers */
  #tell(isNew = false) {
    this.#channel?.postMessage({ id: this.#id, count: this.#own, isNew })
  }
}
