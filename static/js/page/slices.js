/** How long a slice may take, in milliseconds: half of a frame. */
const BUDGET = 8

/**
 * Work in small pieces, so that the page stays responsive: what is added last is done first, the
 * first slice at once, the others one after each frame.
 */
export class Slices {
  /** @type {(() => void)[]} */
  #work = []
  #scheduled = false
  #now
  #later

  /**
   * @param {object} [options]
   * @param {() => number} [options.now] milliseconds
   * @param {(run: () => void) => void} [options.later]
   */
  constructor({ now = () => performance.now(), later = afterNextFrame } = {}) {
    this.#now = now
    this.#later = later
  }

  /** @param {() => void} piece */
  add(piece) {
    this.#work.push(piece)
  }

  /** Does one slice now, and the rest later. */
  run() {
    if (this.#scheduled) return
    const end = this.#now() + BUDGET
    while (this.#work.length > 0 && this.#now() < end) this.#work.pop()?.()
    this.wait()
  }

  /** Does all of it now, however long it takes. */
  finish() {
    while (this.#work.length > 0) this.#work.pop()?.()
  }

  /** Leaves all of it for after the next frame. */
  wait() {
    if (this.#scheduled || this.#work.length === 0) return
    this.#scheduled = true
    this.#later(() => {
      this.#scheduled = false
      this.run()
    })
  }

  /** Forgets what is not done yet. */
  clear() {
    this.#work = []
  }
}

/** @param {() => void} run */
function afterNextFrame(run) {
  // Right after a frame, not in it. In a hidden tab there are no frames, and no hurry.
  requestAnimationFrame(() => setTimeout(run))
}
