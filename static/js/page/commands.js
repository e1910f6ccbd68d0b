import { Dialog } from './dialog.js'
import { KeysDialog } from './keys-dialog.js'
import { Menu } from './menu.js'
import { bindPreference } from './preferences.js'
import { Shortcuts } from './shortcuts.js'

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))
/** @param {string} testId */
const dialog = (testId) => /** @type {HTMLDialogElement} */ (part(testId))
/** @param {string} testId */
const select = (testId) => /** @type {HTMLSelectElement} */ (part(testId))

/**
 * What can be done from anywhere in the page: by a key, in the menu of the bar, in the dialogs.
 *
 * @param {import('../client.js').ChatClient} client
 * @param {object} page
 * @param {import('./sidebar.js').Sidebar} page.sidebar
 * @param {import('./preferences.js').Preferences} page.preferences
 * @param {() => boolean} page.editLast lets the reader change the last message; `false`: none is
 *   there
 */
export function offerCommands(client, { sidebar, preferences, editLast }) {
  const prompt = /** @type {HTMLTextAreaElement} */ (part('prompt'))

  function stop() {
    if (document.querySelector(':popover-open') || !client.getSnapshot().busy) return false
    client.stop()
  }

  const shortcuts = new Shortcuts([
    { keys: 'Enter', does: 'Send the message', run: null },
    { keys: 'Shift+Enter', does: 'Break the line', run: null },
    {
      keys: 'ArrowUp',
      does: 'In an empty field: edit the last message',
      run: () => prompt.value === '' && editLast(),
      on: prompt,
    },
    { keys: 'Escape', does: 'Stop the answer', run: stop },
    { keys: 'Mod+Shift+O', does: 'New chat', run: () => sidebar.startNew() },
    { keys: 'Mod+K', does: 'Search chats', run: () => sidebar.search() },
    {
      keys: 'F2',
      does: 'Rename the chat that has the focus',
      run: () => sidebar.renameFocused(),
      on: part('sessions'),
    },
    { keys: 'Mod+/', does: 'Show these keys', run: () => keys.open() },
  ])
  const keys = new KeysDialog(dialog('keys-dialog'), shortcuts)
  const settings = new Dialog(dialog('settings'))
  bindPreference(select('theme'), preferences.theme)
  bindPreference(select('settings-when-busy'), preferences.whenBusy)
  part('keys-open').addEventListener('click', () => keys.open())
  part('settings-open').addEventListener('click', () => settings.open())

  /** @returns {import('./menu.js').MenuContent} */
  function menuContent() {
    const { session_id, messages } = client.getSnapshot()
    if (messages.length === 0) return { label: 'Menu', links: {} }
    const { sessions } = client
    const links = {
      md: sessions.exportUrl(session_id, 'md'),
      json: sessions.exportUrl(session_id, 'json'),
    }
    return { label: 'Menu', links }
  }
  new Menu(part('menu')).attach(part('menu-button'), menuContent, (choice) => {
    if (choice === 'settings') settings.open()
    else if (choice === 'keys') keys.open()
  })
}
