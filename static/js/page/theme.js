/** @typedef {import('./preferences.js').Preference<import('./preferences.js').Theme>} Choice */

/**
 * Shows the page in the colours that are chosen: `<html data-theme="light">` or `"dark"`, and none
 * where the system decides. theme-early.js has done the same before the first paint.
 *
 * @param {Choice} choice
 * @param {HTMLElement} [root]
 */
export function applyTheme(choice, root = document.documentElement) {
  const show = () => {
    if (choice.value === 'system') delete root.dataset.theme
    else root.dataset.theme = choice.value
  }
  choice.subscribe(show)
  show()
}
