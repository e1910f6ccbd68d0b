import { call } from './callbacks.js'
import { deferred } from './reading.js'

/** @typedef {import('./reading.js').Reading} Reading */

/** An answer being made: the reading of its stream. */
export class Live {
  stopping = false
  #left = false
  /** @type {Reading | null} */
  #reading = null
  /** @type {import('./reading.js').Deferred<void>} */
  #accepted = deferred()
  /** @type {import('./reading.js').Deferred<void>} */
  #ended = deferred()

  /**
   * @param {string} stream_id
   * @param {boolean} isTimed its frames come when they are made: what happens, happens now
   */
  constructor(stream_id, isTimed) {
    this.stream_id = stream_id
    this.isTimed = isTimed
  }

  /** Resolves when a later start cannot overtake this one any more. */
  get accepted() {
    return this.#accepted.promise
  }

  /** Resolves when the reading is over. */
  get ended() {
    return this.#ended.promise
  }

  /** @param {Reading} reading */
  attach(reading) {
    this.#reading = reading
    const { resolve } = this.#accepted
    reading.accepted.then(resolve, () => resolve())
    if (this.#left) this.leaveNow()
  }

  end() {
    this.#ended.resolve()
    this.#accepted.resolve()
  }

  /** Stops reading as soon as the server has the request: a prompt that was sent is not lost. */
  leave() {
    this.accepted.then(() => this.leaveNow())
  }

  leaveNow() {
    this.#left = true
    call(() => this.#reading?.leave())
  }
}
