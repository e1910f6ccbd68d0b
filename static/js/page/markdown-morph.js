import { codeBlockOf, commonLength } from './markdown-code.js'
import { formulaIn } from './markdown-formula.js'

/**
 * Makes an element of the page like another one, and changes as little as it can: text that grows
 * keeps its node, so that what the reader has selected or focused in it stays so.
 *
 * @param {Element} shown in the page
 * @param {Element} made what it is to be
 * @returns {Element} the one that is in the page then
 */
export function morph(shown, made) {
  if (become(shown, made)) return shown
  shown.replaceWith(made)
  return made
}

/**
 * @param {Node} shown
 * @param {Node} made
 * @returns {boolean} false: it cannot, and nothing was changed
 */
function become(shown, made) {
  if (shown instanceof Text && made instanceof Text) {
    writeText(shown, made.data)
    return true
  }
  if (!(shown instanceof Element && made instanceof Element)) return false
  if (made.localName === 'pre') return growCode(shown, made)
  if (made.localName === 'table' && shown.className === 'table' && shown.firstElementChild) {
    return become(shown.firstElementChild, made)
  }
  const formula = formulaIn(made)
  if (formula !== null || formulaIn(shown) !== null) {
    return formula === formulaIn(shown) && made.classList.contains('display') === shown.classList.contains('display')
  }
  if (shown.localName !== made.localName || shown.localName === 'div') return false
  copyAttributes(shown, made)
  morphChildren(shown, made)
  return true
}

/**
 * @param {Text} shown
 * @param {string} text
 */
function writeText(shown, text) {
  const before = shown.data
  if (text === before) return
  const same = commonLength(text, before)
  shown.replaceData(same, before.length - same, text.slice(same))
}

/**
 * @param {Element} shown
 * @param {Element} made a `pre`
 */
function growCode(shown, made) {
  const block = codeBlockOf(shown)
  const { language, text } = sourceOf(made)
  return block?.language === language && block.change(text)
}

/**
 * The code in a `pre`, and its language.
 *
 * @param {Element} pre
 */
export const sourceOf = (pre) => ({
  language: pre.firstElementChild?.className.replace(/^language-/, '') ?? '',
  text: pre.textContent,
})

/**
 * @param {Element} shown
 * @param {Element} made
 */
function copyAttributes(shown, made) {
  for (const { name } of [...shown.attributes]) {
    if (!made.hasAttribute(name)) shown.removeAttribute(name)
  }
  for (const { name, value } of made.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value)
  }
}

/**
 * @param {Element} shown
 * @param {Element} made is empty afterwards
 */
function morphChildren(shown, made) {
  let place = shown.firstChild
  for (const node of [...made.childNodes]) {
    const next = place?.nextSibling ?? null
    if (!place) shown.append(node)
    else if (!become(place, node)) place.replaceWith(node)
    place = next
  }
  while (place) {
    const next = place.nextSibling
    place.remove()
    place = next
  }
}
