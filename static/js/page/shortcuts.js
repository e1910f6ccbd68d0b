/**
 * @typedef {object} Shortcut
 * @property {string} keys as in `Mod+Shift+O`, `Escape`, `ArrowUp`. `Mod` is ⌘ on Apple's systems
 *   and Ctrl elsewhere
 * @property {string} does a sentence for people
 * @property {((event: KeyboardEvent) => boolean | void) | null} run `false`: it does not apply now,
 *   and the key keeps its own meaning. null: the browser does it by itself
 * @property {EventTarget} [on] holds only where this has the focus; else everywhere in the page
 */

/** Names of keys as people know them. */
const NAMES = new Map([
  ['ArrowUp', '↑'],
  ['Escape', 'Esc'],
])
const APPLE_NAMES = new Map([
  ['Mod', '⌘'],
  ['Shift', '⇧'],
])
const OTHER_NAMES = new Map([['Mod', 'Ctrl']])

/** Whether this is one of Apple's systems. */
export const isApple = () => /^(Mac|iP)/.test(globalThis.navigator?.platform ?? '')

/**
 * The keys of the page: what they do and what is told about them come from one table.
 *
 * Nothing happens while an input method composes, and nothing behind an open dialog.
 */
export class Shortcuts {
  #apple
  #document

  /**
   * @param {readonly Shortcut[]} table of two that fit, the first that applies is done
   * @param {{document?: Document, apple?: boolean}} [surroundings]
   */
  constructor(table, { document = globalThis.document, apple = isApple() } = {}) {
    this.table = table
    this.#apple = apple
    this.#document = document
    for (const target of new Set(table.map(({ on }) => on ?? document))) {
      const here = table.filter((shortcut) => (shortcut.on ?? document) === target)
      target.addEventListener('keydown', (event) => {
        this.#press(/** @type {KeyboardEvent} */ (event), here)
      })
    }
  }

  /**
   * The keys of a shortcut, as they are written on the keyboard.
   *
   * @param {Shortcut} shortcut
   * @returns {string[]}
   */
  names({ keys }) {
    const own = this.#apple ? APPLE_NAMES : OTHER_NAMES
    return keys.split('+').map((key) => own.get(key) ?? NAMES.get(key) ?? key)
  }

  /**
   * @param {KeyboardEvent} event
   * @param {readonly Shortcut[]} table
   */
  #press(event, table) {
    // 229: Safari says only so that it composes.
    if (event.defaultPrevented || event.isComposing || event.keyCode === 229) return
    if (this.#document.querySelector('dialog[open]')) return
    for (const { keys, run } of table) {
      if (!run || !this.#fits(event, keys)) continue
      if (run(event) === false) continue
      event.preventDefault()
      return
    }
  }

  /**
   * @param {KeyboardEvent} event
   * @param {string} keys
   */
  #fits(event, keys) {
    const parts = keys.split('+')
    const key = /** @type {string} */ (parts.at(-1))
    const [command, foreign] = this.#apple
      ? [event.metaKey, event.ctrlKey]
      : [event.ctrlKey, event.metaKey]
    if (command !== parts.includes('Mod') || foreign || event.altKey) return false
    // Some keyboards need Shift for a sign such as the slash.
    const isSign = key.length === 1 && !isLetter(key)
    if (!isSign && event.shiftKey !== parts.includes('Shift')) return false
    if (event.key.toLowerCase() === key.toLowerCase()) return true
    // Where the keyboard writes another script, the place of the key counts.
    return isLetter(key) && !isLetter(event.key) && event.code === `Key${key}`
  }
}

/** @param {string} key */
const isLetter = (key) => /^[a-z]$/i.test(key)
