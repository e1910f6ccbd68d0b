import purifier from '../../vendor/dompurify/purify.js'

const CONFIG = {
  ALLOWED_TAGS: [
    ...['p', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'blockquote', 'hr', 'pre', 'br'],
    ...['strong', 'em', 'del', 'code', 'a', 'input', 'span'],
    ...['table', 'thead', 'tbody', 'tr', 'th', 'td', '#text'],
  ],
  ALLOWED_ATTR: ['href', 'title', 'start', 'type', 'checked', 'disabled', 'class', 'data-align'],
  ADD_URI_SAFE_ATTR: ['start', 'type', 'checked', 'disabled', 'data-align'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  KEEP_CONTENT: false,
  RETURN_DOM_FRAGMENT: true,
}

/** @type {Record<string, RegExp>} */
const CLASSES = { code: /^language-\S+$/, span: /^math(?: display)?$/ }

purifier.addHook('uponSanitizeAttribute', (element, data) => {
  if (data.attrName === 'class') {
    const allowed = CLASSES[element.localName]
    data.keepAttr = allowed !== undefined && allowed.test(data.attrValue)
  }
})

/** Each takes its direction from its own text, as a whole: the items of a list are set alike. */
const DIRECTED = new Set(['p', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'blockquote'])

purifier.addHook('afterSanitizeAttributes', (element) => {
  if (element.localName === 'code' || element.localName === 'span') element.setAttribute('dir', 'ltr')
  else if (element.parentElement?.localName === 'body' && DIRECTED.has(element.localName)) {
    element.setAttribute('dir', 'auto')
  }
  if (element.localName === 'a') {
    element.setAttribute('target', '_blank')
    element.setAttribute('rel', 'noopener noreferrer nofollow')
  } else if (element.localName === 'input') {
    element.setAttribute('type', 'checkbox')
    element.setAttribute('disabled', '')
    element.setAttribute('aria-label', element.hasAttribute('checked') ? 'Done' : 'To do')
  }
})

/**
 * The elements of an HTML text that cannot do harm. The renderer escapes all that an answer says:
 * this is the second wall, in case the first has a hole.
 *
 * @param {string} html
 */
export const clean = (html) => purifier.sanitize(html, CONFIG)
