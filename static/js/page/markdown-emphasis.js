/**
 * Chinese, Japanese and Korean letters and punctuation. Such text has no spaces between its words,
 * so that the rules of CommonMark, which look for spaces, leave many asterisks in it.
 */
const CJK =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Bopomofo}\u3000-\u303f\uff01-\uff60\uffe0-\uffee\ufe30-\ufe4f]/u
const PUNCTUATION = /[\p{P}\p{S}]/u

/** Stand-ins that the rules of CommonMark take for a letter and for punctuation; both are CJK. */
const LETTER = '字'
const MARK = '。'

/** @param {string} character */
const isCjk = (character) => character !== '' && CJK.test(character)

/** @param {string} character */
const isOtherMark = (character) => PUNCTUATION.test(character) && !CJK.test(character)

/** @param {string} character */
const isDigit = (character) => character >= '0' && character <= '9'

/** @param {string} character */
const isWord = (character) => /[\p{L}\p{N}]/u.test(character) && !CJK.test(character)

/**
 * Whether a run of asterisks is arithmetic: `5*3`, `2**10`, `3*x`.
 *
 * @param {string} before the character before the run; '' where there is none
 * @param {string} after
 * @param {number} length of the run
 */
const isProduct = (before, after, length) =>
  isDigit(before) && (isDigit(after) || (length === 1 && isWord(after)))

/**
 * The text in which marked looks for the ends of emphasis, changed so that the rules of CommonMark
 * lead to what its CJK-friendly amendment says. It stays as long as it is.
 *
 * A run of asterisks closes beside a CJK character where it does beside a space, and CJK punctuation
 * does not keep it from closing. A product is no emphasis, and `1~~2` strikes nothing out.
 *
 * @param {string} text
 */
export function maskEmphasis(text) {
  if (!text.includes('*') && !text.includes('~~')) return text
  const masked = text.split('')
  for (const { 0: run, index } of text.matchAll(/\*+|(?<!~)~~(?!~)/g)) {
    const end = index + run.length
    const [before, after] = [characterBefore(text, index), characterAt(text, end)]
    if (run === '~~' ? isDigit(before) && isDigit(after) : isProduct(before, after, run.length)) {
      masked.fill(LETTER, index, end)
    } else if (run !== '~~') {
      if (isCjk(before)) masked.fill(standIn(after), index - before.length, index)
      if (isCjk(after)) masked.fill(standIn(before), end, end + after.length)
    }
  }
  return masked.join('')
}

/**
 * Whether a run of asterisks may open emphasis though CommonMark's own rules might say no.
 *
 * @param {string} text that begins with the run
 * @param {string} before the character before it; '' where there is none
 */
export function opensBesideCjk(text, before) {
  const after = characterAt(text, /^\*+/.exec(text)?.[0].length ?? 0)
  return isCjk(before) || isCjk(after)
}

/**
 * What a CJK character beside a run of asterisks counts as.
 *
 * @param {string} other the character at the other side of the run
 */
const standIn = (other) => (isOtherMark(other) ? MARK : LETTER)

/**
 * @param {string} text
 * @param {number} at
 */
const characterAt = (text, at) => {
  const point = text.codePointAt(at)
  return point === undefined ? '' : String.fromCodePoint(point)
}

/**
 * @param {string} text
 * @param {number} at
 */
export const characterBefore = (text, at) => [...text.slice(Math.max(0, at - 2), at)].at(-1) ?? ''
