/** @typedef {import('../message.js').Message} Message */

/** How long is waited between two things that are said, in milliseconds. */
const PAUSE = 1500

/** What a line that begins a block of its own looks like. */
const BLOCK = /^ {0,3}(?:#{1,6}\s|>|[-*+]\s|\d{1,9}[.)]\s|\||`{3}|~{3}|(?:[-*_][ \t]*){3,}$)/

/** @type {Intl.Segmenter | null} made when it is needed first: that takes the browser long */
let segmenter = null

function browsersOwn() {
  if (!globalThis.Intl?.Segmenter) return null
  return (segmenter ??= new Intl.Segmenter(undefined, { granularity: 'sentence' }))
}

/**
 * The pieces of a text that are a sentence each; joined, they are the text.
 *
 * @param {string} text
 * @param {Intl.Segmenter | null} [by] null: by punctuation alone
 * @returns {string[]}
 */
export function splitSentences(text, by = browsersOwn()) {
  if (by) return Array.from(by.segment(text), ({ segment }) => segment)
  return text.match(/.*?[.!?…。！？]+["'”’)\]]*(?:\s+|$)|.+$/gs) ?? []
}

/**
 * A piece of markdown as it is read aloud.
 *
 * @param {string} markdown a sentence, or a line
 * @returns {string} empty: there is nothing to say
 */
export function plainOf(markdown) {
  const text = markdown
    .replace(/^\s*(?:#{1,6}\s|>\s?|[-*+]\s(?:\[[ xX]\]\s)?|\d{1,9}[.)]\s)+/, '')
    .replace(/!?\[([^\]]*)\]\([^)\s]*(?:\s+["'][^)]*)?\)/g, '$1')
    .replace(/(?<![\d*])\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?![\d*])/g, '')
    .replace(/(?<!\d)~~(?=\S)|(?<=\S)~~(?!\d)/g, '')
    .replace(/(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)|`+/g, '')
    .replace(/\s*\|\s*/g, ', ')
    .replace(/\s+/g, ' ')
    .replace(/^[, ]+|[, ]+$/g, '')
  return /[\p{L}\p{N}\p{S}]/u.test(text.replace(/[-:=#>|, ]/g, '')) ? text : ''
}

/**
 * Reads a growing markdown text sentence by sentence, each of them once. Of a block of code only
 * the language is told.
 */
export class SentenceReader {
  #at = 0
  /** @type {RegExp | null} the end of the block of code that is passed over */
  #fence = null

  /**
   * @param {string} content all of the text so far
   * @param {boolean} [ended] nothing follows
   * @returns {string[]} what is whole now and was not before
   */
  read(content, ended = false) {
    /** @type {string[]} */
    const said = []
    while (this.#at < content.length) {
      const before = this.#at
      if (this.#fence) this.#skipCode(this.#fence, content, ended)
      else if (!this.#openCode(content, ended, said)) this.#readBlock(content, ended, said)
      if (this.#at === before) break
    }
    return said
  }

  /**
   * @param {RegExp} fence
   * @param {string} content
   * @param {boolean} ended
   */
  #skipCode(fence, content, ended) {
    const { line, next } = lineAt(content, this.#at)
    if (next === null && !ended) return
    this.#at = next ?? content.length
    if (fence.test(line)) this.#fence = null
  }

  /**
   * @param {string} content
   * @param {boolean} ended
   * @param {string[]} said
   * @returns {boolean} whether code begins here
   */
  #openCode(content, ended, said) {
    const { line, next } = lineAt(content, this.#at)
    const opening = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/.exec(line)
    if (!opening) return false
    if (next === null && !ended) return true // the language may still grow
    const [, marks, language] = opening
    this.#fence = new RegExp(`^\\s*${marks[0]}{${marks.length},}\\s*$`)
    this.#at = next ?? content.length
    said.push(language ? `Code block in ${language}.` : 'Code block.')
    return true
  }

  /**
   * Reads on in a paragraph, an item or a row; its last sentence only when it cannot grow.
   *
   * @param {string} content
   * @param {boolean} ended
   * @param {string[]} said
   */
  #readBlock(content, ended, said) {
    const { end, isWhole } = blockAt(content, this.#at)
    // A break within a paragraph is a blank; elsewhere it would end a sentence.
    const sentences = splitSentences(content.slice(this.#at, end).replaceAll('\n', ' '))
    if (!isWhole && !ended) sentences.pop()
    for (const sentence of sentences) {
      this.#at += sentence.length
      const plain = plainOf(sentence)
      if (plain) said.push(plain)
    }
  }
}

/**
 * @param {string} content
 * @param {number} at
 * @returns {{line: string, next: number | null}} `next`: null where the line may still grow
 */
function lineAt(content, at) {
  const end = content.indexOf('\n', at)
  if (end === -1) return { line: content.slice(at), next: null }
  return { line: content.slice(at, end), next: end + 1 }
}

/**
 * @param {string} content
 * @param {number} at
 * @returns {{end: number, isWhole: boolean}} where the block ends that begins here
 */
function blockAt(content, at) {
  let { next } = lineAt(content, at)
  while (next !== null) {
    const { line, next: after } = lineAt(content, next)
    if (BLOCK.test(line)) return { end: next, isWhole: true }
    if (line.trim() === '' && after !== null) return { end: after, isWhole: true }
    next = after
  }
  return { end: content.length, isWhole: false }
}

/**
 * Says to a screen reader what a growing answer says: whole sentences, each once and none too soon
 * after another, and how it ended. It speaks through two live regions that nobody sees.
 */
export class Speaker {
  #polite
  #alarm
  #wait
  /** @type {Map<string, {reader: SentenceReader, message: Message}>} */
  #heard = new Map()
  /** @type {string[]} */
  #waiting = []
  #resting = false

  /**
   * @param {HTMLElement} polite
   * @param {HTMLElement} alarm
   * @param {(run: () => void, ms: number) => void} [wait]
   */
  constructor(polite, alarm, wait = (run, ms) => void setTimeout(run, ms)) {
    this.#polite = polite
    this.#alarm = alarm
    this.#wait = wait
  }

  /**
   * An answer that is being made, as it is now. What it said before we came is not repeated.
   *
   * @param {Message} message
   */
  hear(message) {
    const heard = this.#heard.get(message.id)
    if (heard) {
      heard.message = message
    } else {
      const reader = new SentenceReader()
      reader.read(message.content)
      this.#heard.set(message.id, { reader, message })
    }
    this.#speakSoon()
  }

  /**
   * An answer has ended. Nothing is said of one that was not heard before.
   *
   * @param {Message} message
   * @param {string} ending how it ended, for people
   */
  end(message, ending) {
    const heard = this.#heard.get(message.id)
    if (!heard) return
    this.#heard.delete(message.id)
    this.#waiting.push(...heard.reader.read(message.content, true))
    if (message.status === 'error') {
      this.#alarm.textContent = `The answer failed: ${ending}`
    } else {
      this.#waiting.push(`${ending}.`)
    }
    this.#speakSoon()
  }

  /** Forgets what is not said yet: another conversation is shown. */
  clear() {
    this.#heard.clear()
    this.#waiting = []
    this.#alarm.textContent = ''
  }

  #speakSoon() {
    if (this.#resting) return
    this.#resting = true
    this.#wait(() => {
      this.#resting = false
      this.#speak()
    }, PAUSE)
  }

  #speak() {
    for (const { reader, message } of this.#heard.values()) {
      this.#waiting.push(...reader.read(message.content))
    }
    if (this.#waiting.length === 0) return
    const line = document.createElement('p')
    line.textContent = this.#waiting.splice(0).join(' ')
    this.#polite.append(line)
    // What is taken away is still said; this only keeps the page small.
    while (this.#polite.childElementCount > 3) this.#polite.firstElementChild?.remove()
  }
}
