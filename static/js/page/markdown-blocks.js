import { escape, html, itemHtml, languageOf, lex, rowHtml, shown } from './markdown-html.js'

/** @typedef {import('../../vendor/marked/marked.js').Links} Links */
/** @typedef {import('../../vendor/marked/marked.js').MarkedToken} Token */

/**
 * What becomes one element of the page. Lists and tables come in pieces, so that of a long one only
 * the pieces that changed need to be made anew.
 *
 * @typedef {{kind: 'html', html: string}
 *   | {kind: 'code', language: string, text: string}
 *   | Pieced} Block
 * @typedef {{kind: 'list' | 'table', open: string, close: string,
 *   pieces: readonly string[]}} Pieced
 */

/**
 * An open fence at the end of the text: all that comes is its code, until a line closes it.
 *
 * @typedef {object} Fence
 * @property {number} start where its first line of code starts
 * @property {number} scanned up to where no line closes it
 * @property {RegExp} closing
 * @property {string} language
 */

/** After these the next line starts afresh, whatever it is. */
const ENDED_BY_THEMSELVES = new Set(['heading', 'hr'])

/**
 * The blocks of a text that grows at its end.
 *
 * Blocks are frozen as soon as no further text can change them. Only the tail after them is lexed
 * again. The one thing that can still reach a frozen block is the definition of a reference link
 * that comes later: see `blocksOf`.
 */
export class GrowingBlocks {
  /** The text so far, as it came. */
  #content = ''
  /** Up to here the blocks are frozen. */
  #offset = 0
  /** @type {Links} */
  #links = {}
  /** @type {Fence | null} */
  #fence = null
  /** @type {Block[]} */
  #before = []

  /** @type {Block[]} Append-only. */
  frozen = []
  /** @type {readonly Block[]} What follows the frozen ones, for now. */
  tail = []

  /**
   * @param {string} content the whole text so far; false is returned, and nothing done, when it is
   *   no continuation of the last one
   */
  update(content) {
    if (!content.startsWith(this.#content)) return false
    this.#content = content
    const text = withPlainLineEnds(content)
    if (!this.#fence || this.#closed(text, this.#fence)) this.#lexTail(text)
    if (this.#fence) this.tail = [...this.#before, codeOf(text, this.#fence)]
    return true
  }

  /**
   * @param {string} text
   * @param {Fence} fence
   */
  #closed(text, fence) {
    const end = text.lastIndexOf('\n') + 1
    if (end <= fence.scanned) return false
    fence.closing.lastIndex = fence.scanned
    if (fence.closing.exec(text.slice(0, end))) return true
    fence.scanned = end
    return false
  }

  /** @param {string} text */
  #lexTail(text) {
    const source = text.slice(this.#offset)
    const { tokens } = lex(source, this.#links)
    let count = 0
    let at = this.#offset
    let cut = at
    for (const [index, token] of tokens.entries()) {
      // Marked tidies the source of some tokens: then it does not say where they end.
      if (!text.startsWith(token.raw, at)) break
      at += token.raw.length
      if (text.indexOf('\n', at) === -1) break // the next line may become anything
      const next = tokens[index + 1]
      if (next && next.type !== 'space' && isEnd(token, text, at)) {
        count = index + 1
        cut = at
      }
    }
    let rest = tokens
    if (count > 0) {
      let settled = tokens.slice(0, count)
      if (source.includes(']:')) {
        // Lexed alone, so that no definition is used that is in the tail and may still change.
        const alone = lex(text.slice(this.#offset, cut), this.#links)
        settled = alone.tokens
        this.#links = alone.links
      }
      this.frozen.push(...blocks(settled))
      this.#offset = cut
      rest = tokens.slice(count)
    }
    this.#fence = openFence(rest.at(-1), text)
    if (this.#fence) this.#before = blocks(rest.slice(0, -1))
    else this.tail = blocks(rest)
  }
}

/**
 * The blocks of a whole text.
 *
 * @param {string} content
 * @returns {Block[]}
 */
export function blocksOf(content) {
  return blocks(lex(withPlainLineEnds(content), {}).tokens)
}

/** @param {string} content */
const withPlainLineEnds = (content) =>
  content.includes('\r') ? content.replace(/\r\n?/g, '\n') : content

/**
 * Whether everything up to here is settled, once the next line is complete.
 *
 * @param {import('../../vendor/marked/marked.js').Token} token
 * @param {string} text
 * @param {number} end where the token ends
 */
function isEnd(token, text, end) {
  if (ENDED_BY_THEMSELVES.has(token.type)) return true
  if (token.type === 'code') return token['codeBlockStyle'] !== 'indented'
  return /\n[ \t]*\n$/.test(text.slice(Math.max(0, end - 80), end))
}

/**
 * @param {import('../../vendor/marked/marked.js').Token | undefined} token
 * @param {string} text
 * @returns {Fence | null} null too when the fence is indented: then its code is not simply the text
 */
function openFence(token, text) {
  if (token?.type !== 'code' || token['codeBlockStyle'] === 'indented') return null
  const start = text.length - token.raw.length
  const [line, mark] = /^(`{3,}|~{3,})[^\n]*\n/.exec(token.raw) ?? []
  if (line === undefined || mark === undefined || !text.endsWith(token.raw)) return null
  const closing = closingOf(mark)
  closing.lastIndex = start + line.length
  if (closing.exec(text)) return null
  return {
    start: start + line.length,
    scanned: start + line.length,
    closing,
    language: languageOf(token['lang']),
  }
}

/** @param {string} mark */
const closingOf = (mark) => new RegExp(`^ {0,3}${mark}${mark[0]}* *$`, 'gm')

/**
 * @param {string} text
 * @param {Fence} fence
 * @returns {Block}
 */
function codeOf(text, fence) {
  // A last line of nothing but fence characters waits until it is clear what it is.
  const last = Math.max(text.lastIndexOf('\n') + 1, fence.start)
  const end = /^ {0,3}(?:`+|~+)? *$/.test(text.slice(last)) ? last : text.length
  return { kind: 'code', language: fence.language, text: shown(text.slice(fence.start, end)) }
}

/**
 * @param {readonly import('../../vendor/marked/marked.js').Token[]} tokens
 * @returns {Block[]}
 */
function blocks(tokens) {
  const made = []
  for (const token of /** @type {readonly Token[]} */ (tokens)) {
    let block
    try {
      block = blockOf(token)
    } catch {
      block = asItIs(token.raw) // nested too deeply
    }
    if (block) made.push(block)
  }
  return made
}

/**
 * @param {string} text
 * @returns {Block}
 */
const asItIs = (text) => ({ kind: 'code', language: '', text })

/**
 * @param {Token} token
 * @returns {Block | null}
 */
function blockOf(token) {
  switch (token.type) {
    case 'space':
    case 'def':
      return null
    case 'code':
      return { kind: 'code', language: languageOf(token.lang), text: shown(token.text) }
    case 'list': {
      const tag = token.ordered ? 'ol' : 'ul'
      const start = token.ordered && token.start !== 1 ? ` start="${token.start}"` : ''
      const pieces = token.items.map(itemHtml)
      return { kind: 'list', open: `<${tag}${start}>`, pieces, close: `</${tag}>` }
    }
    case 'table': {
      const open = `<table><thead>${rowHtml(token.header)}</thead><tbody>`
      return { kind: 'table', open, pieces: token.rows.map(rowHtml), close: '</tbody></table>' }
    }
    default:
      return { kind: 'html', html: html(token) }
  }
}

/**
 * A block as HTML, of one element.
 *
 * @param {Block} block
 */
export function htmlOf(block) {
  switch (block.kind) {
    case 'html':
      return block.html
    case 'code': {
      const name = block.language === '' ? '' : ` class="language-${escape(block.language)}"`
      return `<pre><code${name}>${escape(block.text)}</code></pre>`
    }
    default:
      return block.open + block.pieces.join('') + block.close
  }
}
