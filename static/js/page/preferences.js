const PREFIX = 'jarvis-stream.'

/**
 * What a message does that is sent while an answer is being made: take its place, or wait.
 *
 * @typedef {'interrupt' | 'enqueue'} WhenBusy
 */

/** @typedef {'system' | 'light' | 'dark'} Theme */

/**
 * One thing the reader may choose. It is remembered in this browser where that is allowed, else
 * for as long as the page is open; other tabs of the same browser follow.
 *
 * @template {string} Value
 */
export class Preference {
  #key
  #values
  #window
  /** @type {Value} */
  #value
  /** @type {Set<() => void>} */
  #listeners = new Set()

  /**
   * @param {string} name
   * @param {readonly [Value, ...Value[]]} values what may be chosen, the default first
   * @param {Window} [window]
   */
  constructor(name, values, window = globalThis.window) {
    this.#key = PREFIX + name
    this.#values = values
    this.#window = window
    this.#value = this.#known(this.#stored())
    window.addEventListener('storage', ({ key, newValue }) => {
      if (key === this.#key || key === null) this.#take(this.#known(newValue))
    })
  }

  get value() {
    return this.#value
  }

  set value(value) {
    // With storage blocked, merely reading `window.localStorage` throws.
    try {
      this.#window.localStorage.setItem(this.#key, value)
    } catch {
      // Then it holds for as long as the page is open.
    }
    this.#take(value)
  }

  /**
   * Calls the listener whenever another value is chosen, here or in another tab.
   *
   * @param {() => void} listener
   * @returns {() => void} ends it
   */
  subscribe(listener) {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** @param {Value} value */
  #take(value) {
    if (value === this.#value) return
    this.#value = value
    for (const listener of this.#listeners) listener()
  }

  #stored() {
    try {
      return this.#window.localStorage.getItem(this.#key)
    } catch {
      return null
    }
  }

  /**
   * What an older or newer page has stored is no choice of this one.
   *
   * @param {string | null} stored
   * @returns {Value}
   */
  #known(stored) {
    return this.#values.find((value) => value === stored) ?? this.#values[0]
  }
}

/**
 * The choices of this page.
 *
 * @param {Window} [window]
 */
export function createPreferences(window = globalThis.window) {
  return {
    whenBusy: new Preference('when-busy', /** @type {const} */ (['interrupt', 'enqueue']), window),
    theme: new Preference('theme', /** @type {const} */ (['system', 'light', 'dark']), window),
  }
}

/** @typedef {ReturnType<typeof createPreferences>} Preferences */

/**
 * Lets a choice be made in a form control: the control shows the value, whoever changes it.
 *
 * @template {string} Value
 * @param {HTMLSelectElement} control its options are the preference's values
 * @param {Preference<Value>} preference
 */
export function bindPreference(control, preference) {
  const show = () => void (control.value = preference.value)
  control.addEventListener('change', () => {
    preference.value = /** @type {Value} */ (control.value)
  })
  preference.subscribe(show)
  show()
}
