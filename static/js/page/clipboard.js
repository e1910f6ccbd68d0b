/**
 * Copies a text. On a page over plain http from another machine there is no `navigator.clipboard`;
 * the old way works there.
 *
 * @param {string} text
 * @returns {Promise<boolean>} whether it was copied; never rejects
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copyTheOldWay(text)
  }
}

/** @param {string} text */
function copyTheOldWay(text) {
  const focused = document.activeElement
  const field = document.createElement('textarea')
  field.className = 'unseen'
  field.value = text
  document.body.append(field)
  field.select()
  try {
    return document.execCommand('copy')
  } catch {
    return false
  } finally {
    field.remove()
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true })
  }
}
