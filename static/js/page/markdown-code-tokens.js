/** Long code is put into the page in parts of so many lines: the browser lays out one at a time. */
export const PART_LINES = 50

/**
 * A stretch of code of one colour: the classes, as in a `class` attribute ('' for none), and the
 * text.
 *
 * @typedef {readonly [classes: string, text: string]} CodeToken
 */

const ENTITIES = /** @type {Record<string, string>} */ ({
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#x27;': "'",
})

/**
 * What highlight.js says, as plain data: its HTML is never parsed as HTML.
 *
 * @param {string} html nested `<span class="…">`, and escaped text
 * @returns {CodeToken[][]} the parts, with the tokens of each
 */
export function codeParts(html) {
  /** @type {CodeToken[]} */
  let part = []
  const parts = [part]
  /** @type {string[]} */
  const scopes = []
  let lines = 0
  for (const [all, opened, text] of html.matchAll(/<span class="([^"]*)">|<\/span>|([^<]+)/g)) {
    if (opened !== undefined) scopes.push(opened)
    else if (text === undefined) scopes.pop()
    else {
      const classes = scopes.join(' ')
      const plain = all.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITIES[entity] ?? '')
      for (const line of plain.match(/[^\n]*\n|[^\n]+/g) ?? []) {
        const last = part.at(-1)
        if (last?.[0] === classes) part[part.length - 1] = [classes, last[1] + line]
        else part.push([classes, line])
        if (!line.endsWith('\n')) continue
        lines += 1
        if (lines % PART_LINES === 0) parts.push((part = []))
      }
    }
  }
  if (part.length === 0 && parts.length > 1) parts.pop()
  return parts
}
