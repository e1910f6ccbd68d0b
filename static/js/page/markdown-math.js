/** @typedef {import('../../vendor/marked/marked.js').Token} Token */

/**
 * A formula in an answer: its TeX, and whether it stands on a line of its own.
 *
 * @typedef {{type: 'math' | 'mathBlock', raw: string, text: string, display: boolean}} MathToken
 */

/** Longer ones stay text. In characters. */
const LONGEST = 4000

/** What closes a formula that is opened by this. A formula has no blank line in it. */
const CLOSING = /** @type {Record<string, string>} */ ({ $$: '$$', '\\[': '\\]', '\\(': '\\)' })

const BLOCK_OPENING = /^ {0,3}(\$\$|\\\[)/

/** A line where a paragraph may be cut, as a formula may begin there; or a blank one, which ends it. */
const LINE_OPENING = /\n(?:(?= {0,3}(?:\$\$|\\\[))|([ \t]*(?:\n|$)))/g

/** A dollar that may open a formula in a line: no blank follows it. */
const DOLLAR = /^\$(?![\s$])((?:\\[^\n]|[^\\$\n])*?(?:\\\S|[^\s\\$]))\$(?![\p{L}\p{N}$])/u

/**
 * The text before the first blank line.
 *
 * @param {string} src
 */
function upToBlankLine(src) {
  const end = src.search(/\n[ \t]*(?:\n|$)/)
  return end === -1 ? src : src.slice(0, end + 1)
}

/**
 * Where the closing mark of a formula stands; -1: it is not there.
 *
 * @param {string} text
 * @param {string} closing
 * @param {number} from
 */
function closingAt(text, closing, from) {
  if (!text.includes(closing, from)) return -1
  for (let at = from; at < text.length; at += 1) {
    if (text.startsWith(closing, at)) return at
    if (text[at] === '\\') at += 1 // it takes the next character with it: `\\`, `\$`
  }
  return -1
}

/**
 * A formula that begins here and fills whole lines; or what is one as soon as it is closed, as a
 * paragraph until then.
 *
 * @param {string} src
 * @returns {MathToken | {type: 'paragraph', raw: string, text: string} | undefined}
 */
export function blockMath(src) {
  const [all, opening] = BLOCK_OPENING.exec(src) ?? []
  if (all === undefined || opening === undefined) return undefined
  const near = src.slice(0, LONGEST)
  const blank = near.search(/\n[ \t]*\n/)
  const text = blank === -1 ? near : near.slice(0, blank)
  const closing = CLOSING[opening] ?? opening
  const end = closingAt(text, closing, all.length)
  if (end === -1) {
    if (blank === -1 && src.length > LONGEST) return undefined // too long to become a formula
    const raw = text.replace(/\n[ \t]*$/, '')
    return { type: 'paragraph', raw, text: raw }
  }
  const [rest] = /^[ \t]*(?=\n|$)/.exec(text.slice(end + closing.length)) ?? []
  if (rest === undefined) return undefined // text follows: it stands in a paragraph
  const formula = mathOf(text.slice(0, end + closing.length), text.slice(all.length, end), true)
  return formula && { ...formula, type: 'mathBlock', raw: formula.raw + rest }
}

/**
 * Where a line begins at which the paragraph ends, as a formula fills it; undefined: nowhere.
 *
 * @param {string} src from the second character of the paragraph on
 */
export function blockMathStart(src) {
  for (const { 1: blank, index } of src.slice(0, LONGEST).matchAll(LINE_OPENING)) {
    if (blank !== undefined) return undefined
    if (blockMath(src.slice(index + 1))) return index + 1
  }
  return undefined
}

/**
 * A formula that begins here, within a line.
 *
 * @param {string} src
 * @param {string} before the last character before it; '' where there is none
 * @returns {MathToken | Token | undefined}
 */
export function inlineMath(src, before) {
  const opening = src.slice(0, 2)
  const closing = CLOSING[opening]
  if (closing) {
    const end = closingAt(upToBlankLine(src), closing, 2)
    if (end !== -1) {
      if (/^[\d\s,–-]*$/.test(src.slice(2, end)) && opening === '\\[') return undefined // `\[1\]`
      return mathOf(src.slice(0, end + 2), src.slice(2, end), opening !== '\\(')
    }
    // Until the other end comes, or should it never come: as it was written.
    return { type: 'text', raw: opening, text: opening, escaped: false }
  }
  if (src[0] !== '$' || /[\p{L}\p{N}$\\]/u.test(before)) return undefined
  const [raw, text] = DOLLAR.exec(src.slice(0, LONGEST)) ?? []
  return raw === undefined || text === undefined || isProse(text)
    ? undefined
    : mathOf(raw, text, false)
}

/**
 * Whether what stands between two dollars is text between two prices, as in `$5 and 6$`.
 *
 * @param {string} text
 */
const isProse = (text) =>
  /^\d/.test(text)
    ? /[\s/]\p{L}{2,}/u.test(text) && !text.includes('\\')
    : /(?:^|\s)\p{L}{2,}(?:$|\s)/u.test(text) && !/[\\^_{}=<>+]/.test(text)

/** What is code, or may begin a formula, or takes the next character with it. */
const CODE_OR_MATH = /(?<!`)(`+)(?!`)[^]*?[^`]\1(?!`)|\$|\\[^]/g

/**
 * The text in which marked looks for the ends of emphasis, with all formulas made plain.
 *
 * @param {string} masked as long as the text
 * @param {string} text
 */
export function maskMath(masked, text) {
  if (!text.includes('$') && !/\\[([]/.test(text)) return masked
  let made = ''
  CODE_OR_MATH.lastIndex = 0
  for (let found = CODE_OR_MATH.exec(text); found; found = CODE_OR_MATH.exec(text)) {
    const { 0: raw, index } = found
    if (raw.startsWith('`')) continue
    const formula = inlineMath(text.slice(index), text[index - 1] ?? '')
    if (formula?.type !== 'math') continue
    const end = index + formula.raw.length
    made += `${masked.slice(made.length, index)}[${'a'.repeat(formula.raw.length - 2)}]`
    CODE_OR_MATH.lastIndex = end
  }
  return made + masked.slice(made.length)
}

/**
 * @param {string} raw
 * @param {string} text
 * @param {boolean} display
 * @returns {MathToken | undefined}
 */
const mathOf = (raw, text, display) =>
  text.trim() === '' || raw.length > LONGEST ? undefined : { type: 'math', raw, text, display }
