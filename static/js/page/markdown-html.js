import {
  Hooks,
  Lexer,
  Parser,
  Renderer,
  Tokenizer,
  getDefaults,
} from '../../vendor/marked/marked.js'
import { characterBefore, maskEmphasis, opensBesideCjk } from './markdown-emphasis.js'
import { blockMath, blockMathStart, inlineMath, maskMath } from './markdown-math.js'

/** @typedef {import('../../vendor/marked/marked.js').Token} Token */
/** @typedef {import('../../vendor/marked/marked.js').Tokens.ListItem} ListItem */
/** @typedef {import('../../vendor/marked/marked.js').Tokens.TableCell} TableCell */
/** @typedef {import('../../vendor/marked/marked.js').TokensList} TokensList */
/** @typedef {import('../../vendor/marked/marked.js').Links} Links */
/** @typedef {import('../../vendor/marked/marked.js').MarkedOptions} MarkedOptions */
/** @typedef {import('../../vendor/marked/marked.js').Tokens.Link} Link */
/** @typedef {import('../../vendor/marked/marked.js').Tokens.Image} Image */

/** The level of an answer's first headings: above are those of the page and of the message. */
const FIRST_HEADING = 3

/** Where a link may lead. A path within this site is none of them: an answer has no say in it. */
const SCHEMES = new Set(['http:', 'https:', 'mailto:'])

/** How deeply lists and quotations may be nested. */
const DEEPEST = 16

/** How many characters of a paragraph, item or cell are looked through for markup. */
const LONGEST = 6_000

/**
 * A link's definition, each part of it on one line. Marked would let a title run over several, over
 * blank ones too, and then no text after a definition could ever be said to be finished.
 */
const DEFINITION = new RegExp(
  String.raw`^ {0,3}\[(?:\\.|[^[\]\\\n])+\]:[ \t]*(?:\n[ \t]*)?(?:<[^<>\n]*>|[^\s<]\S*)` +
    String.raw`(?:(?:[ \t]+|[ \t]*\n[ \t]*)` +
    String.raw`(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\((?:\\.|[^()\\\n])*\)))?[ \t]*(?:\n|$)`,
)

const ESCAPES = /** @type {Record<string, string>} */ ({
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
})

/** @param {string} text */
export const escape = (text) => text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? '')

/**
 * Text in which entities stand for characters, as in markdown: those are kept.
 *
 * @param {string} text
 */
const escapeText = (text) =>
  text.replace(/[<>"']|&(?!(?:#\d{1,7}|#x[\da-f]{1,6}|\w+);)/gi, (character) => escape(character))

/**
 * The address a link may have, or null when it may not be a link.
 *
 * @param {string} href
 */
export function safeUrl(href) {
  try {
    // Parsed by the same rules as by the browser, so that no trick of spelling comes between.
    const url = new URL(href.replaceAll('&amp;', '&'))
    return SCHEMES.has(url.protocol) ? url : null
  } catch {
    return null
  }
}

class AnswerTokenizer extends Tokenizer {
  /** HTML is no markup here: a line that looks like it is text like any other. */
  html() {
    return undefined
  }

  /** @param {string} src */
  tag(src) {
    const [raw] = this.rules.inline.tag.exec(src) ?? []
    if (raw === undefined) return undefined
    const state = { inLink: false, inRawBlock: false }
    return { type: /** @type {const} */ ('html'), raw, text: raw, block: false, ...state }
  }

  /** @param {string} src */
  def(src) {
    const [raw] = DEFINITION.exec(src) ?? []
    return raw === undefined ? undefined : super.def(raw)
  }

  /**
   * @param {string} src
   * @param {string} masked
   * @param {string} [before] the last character of the text before it; '' where there is none
   */
  emStrong(src, masked, before = '') {
    const at = masked.length - src.length
    if (masked[at] !== src[0]) return undefined
    const character = before && characterBefore(masked, at)
    const opens = src.startsWith('*') && opensBesideCjk(src, character)
    return super.emStrong(src, masked, opens ? ' ' : before)
  }

  /**
   * One tilde stands before a rough number, or between two ends of a range: it strikes nothing out.
   *
   * @param {string} src
   * @param {string} masked
   * @param {string} [before]
   */
  del(src, masked, before) {
    const isMarkup = src.startsWith('~~') && masked[masked.length - src.length] === '~'
    return isMarkup ? super.del(src, masked, before) : undefined
  }
}

class AnswerHooks extends Hooks {
  /** @param {string} masked */
  emStrongMask(masked) {
    const { source } = /** @type {{lexer: AnswerLexer}} */ (/** @type {unknown} */ (this)).lexer
    return maskEmphasis(maskMath(masked, source))
  }
}

/**
 * A lexer that takes no text to be more than a person could have meant: what is nested
 * or as long as no prose is stays text, as marked could need seconds for it.
 */
class AnswerLexer extends Lexer {
  #depth = 0
  /** The text whose inline markup is looked for. */
  source = ''

  /**
   * @param {string} src
   * @param {Token[]} [tokens]
   * @param {boolean} [lastParagraphClipped]
   * @returns {TokensList} what was given; its `links` are only those of the outermost list
   */
  blockTokens(src, tokens = [], lastParagraphClipped) {
    const list = /** @type {TokensList} */ (tokens)
    if (this.#depth === DEEPEST) {
      list.push({ type: 'paragraph', raw: src, text: src, tokens: this.inline(src) })
      return list
    }
    this.#depth += 1
    try {
      super.blockTokens(src, list, lastParagraphClipped)
      return list
    } finally {
      this.#depth -= 1
    }
  }

  /**
   * @param {string} src
   * @param {Token[]} [tokens]
   */
  inlineTokens(src, tokens = []) {
    if (src.length <= LONGEST) {
      this.source = src
      return super.inlineTokens(src, tokens)
    }
    tokens.push({ type: 'text', raw: src, text: src, escaped: false })
    return tokens
  }
}

/** Well-formed HTML in which whatever the answer says is escaped. */
class AnswerRenderer extends Renderer {
  #inLink = false

  /** @param {{text: string}} token */
  html({ text }) {
    return /^<br *\/?>$/i.test(text) ? '<br>' : escape(text)
  }

  /** @param {{tokens: Token[], depth: number}} token */
  heading({ tokens, depth }) {
    const level = Math.min(6, depth + FIRST_HEADING - 1)
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`
  }

  /** @param {{text: string, lang?: string | undefined}} token */
  code({ text, lang }) {
    const language = languageOf(lang)
    const name = language === '' ? '' : ` class="language-${escape(language)}"`
    return `<pre><code${name}>${escape(shown(text))}</code></pre>`
  }

  /** @param {{checked: boolean}} token */
  checkbox({ checked }) {
    return `<input type="checkbox" disabled${checked ? ' checked' : ''}> `
  }

  /** @param {Link & {autolink?: boolean}} token */
  link({ href, title, text, tokens, autolink }) {
    const url = this.#inLink ? null : safeUrl(href)
    const outer = this.#inLink
    this.#inLink = outer || url !== null
    try {
      const inner = autolink ? escape(text) : this.parser.parseInline(tokens)
      return url ? anchor(url, title, inner) : inner
    } finally {
      this.#inLink = outer
    }
  }

  /**
   * No image is loaded: it would tell a stranger who reads, and when. The reader may follow a link.
   *
   * @param {Image} token
   */
  image({ href, title, tokens }) {
    const said = escapeText(this.parser.parseInline(tokens, this.parser.textRenderer)).trim()
    const url = safeUrl(href)
    const where = url?.host ? ` (image at ${escape(url.host)})` : ' (image)'
    const label = `${said}${where}`.trim()
    return url?.host && !this.#inLink ? anchor(url, title, label) : label
  }

  /** @param {TableCell} cell */
  tablecell({ header, align, tokens }) {
    const tag = header ? 'th' : 'td'
    const aligned = align ? ` data-align="${align}"` : ''
    return `<${tag}${aligned}>${this.parser.parseInline(tokens)}</${tag}>`
  }
}

/**
 * @param {URL} url
 * @param {string | null | undefined} title
 * @param {string} inner HTML
 */
function anchor(url, title, inner) {
  const hint = title ? ` title="${escapeText(title)}"` : ''
  return `<a href="${escape(url.href)}"${hint}>${inner}</a>`
}

/** @typedef {import('./markdown-math.js').MathToken} MathToken */

/**
 * The source of a formula; it is set as one in the page (markdown-formula.js).
 *
 * @param {MathToken} token
 */
const formula = ({ raw, display }) =>
  `<span class="math${display ? ' display' : ''}">${escape(raw.trim())}</span>`

const MATH = {
  block: [
    /**
     * @this {{lexer: AnswerLexer}}
     * @param {string} src
     */
    function (src) {
      const token = blockMath(src)
      if (token?.type !== 'paragraph') return token
      return { ...token, tokens: this.lexer.inline(token.text) }
    },
  ],
  startBlock: [blockMathStart],
  inline: [
    /**
     * @param {string} src
     * @param {Token[]} tokens those before it
     */
    (src, tokens) => inlineMath(src, tokens.at(-1)?.raw.at(-1) ?? ''),
  ],
  startInline: [
    /** @param {string} src */
    (src) => {
      const at = src.indexOf('$')
      return at === -1 ? undefined : at
    },
  ],
  childTokens: {},
  renderers: {
    /** @param {unknown} token */
    math: (token) => formula(/** @type {MathToken} */ (token)),
    /** @param {unknown} token */
    mathBlock: (token) => `<p>${formula(/** @type {MathToken} */ (token))}</p>`,
  },
}

const OPTIONS = {
  ...getDefaults(),
  extensions: /** @type {MarkedOptions['extensions']} */ (/** @type {unknown} */ (MATH)),
  gfm: true,
  breaks: true, // in a chat, people and models mean the lines they break
  silent: false,
  tokenizer: new AnswerTokenizer(),
  renderer: new AnswerRenderer(),
  hooks: new AnswerHooks(),
}
const parser = new Parser(OPTIONS)

/**
 * The blocks of a text, and the link definitions known at its end.
 *
 * @param {string} text with `\n` as its only line end
 * @param {Links} links definitions from before it, which win over its own
 * @returns {{tokens: Token[], links: Links}}
 */
export function lex(text, links) {
  const lexer = new AnswerLexer(OPTIONS)
  Object.assign(lexer.tokens.links, links)
  try {
    return { tokens: [...lexer.lex(text)], links: lexer.tokens.links }
  } catch {
    // Nested deeper than the stack: shown as it is.
    return { tokens: [{ type: 'code', raw: text, text }], links }
  }
}

/**
 * A block's HTML, of exactly one element.
 *
 * @param {Token} token
 */
export const html = (token) => parser.parse([token]).trim()

/**
 * The HTML of a list's item.
 *
 * @param {ListItem} item
 */
export const itemHtml = (item) => OPTIONS.renderer.listitem(item).trim()

/**
 * The HTML of a row of a table.
 *
 * @param {readonly TableCell[]} cells
 */
export const rowHtml = (cells) =>
  `<tr>${cells.map((cell) => OPTIONS.renderer.tablecell(cell)).join('')}</tr>`

/**
 * The language that an info string names, or ''.
 *
 * @param {string | undefined} info
 */
export const languageOf = (info) => /^\S*/.exec(info ?? '')?.[0] ?? ''

/**
 * A code block's text without the line end that belongs to its fence.
 *
 * @param {string} code
 */
export const shown = (code) => (code.endsWith('\n') ? code.slice(0, -1) : code)
