import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Shortcuts } from '../../../static/js/page/shortcuts.js'

class FakeDocument extends EventTarget {
  dialog = null

  querySelector(selector) {
    assert.equal(selector, 'dialog[open]')
    return this.dialog
  }
}

/** A key, pressed; `undefined` modifiers are not held. */
function press(target, key, fields = {}) {
  const event = new Event('keydown', { cancelable: true })
  const none = { ctrlKey: false, metaKey: false, shiftKey: false, altKey: false }
  target.dispatchEvent(Object.assign(event, { key, ...none, ...fields }))
  return event
}

function setUp(table, apple = false) {
  const document = new FakeDocument()
  const done = []
  const shortcuts = new Shortcuts(
    table.map(([keys, on, result]) => {
      const run = () => {
        done.push(keys)
        return result
      }
      return { keys, does: '', run, on }
    }),
    { document, apple },
  )
  return { document, done, shortcuts }
}

test('a shortcut is done once, and its key has no other meaning then', () => {
  const { document, done } = setUp([['Mod+K'], ['Mod+Shift+O'], ['Escape']])
  assert.equal(press(document, 'k', { ctrlKey: true }).defaultPrevented, true)
  assert.equal(press(document, 'O', { ctrlKey: true, shiftKey: true }).defaultPrevented, true)
  assert.equal(press(document, 'Escape').defaultPrevented, true)
  assert.deepEqual(done, ['Mod+K', 'Mod+Shift+O', 'Escape'])
})

test('other keys held as well make it another key', () => {
  const { document, done } = setUp([['Mod+K'], ['Mod+Shift+O'], ['Escape']])
  assert.equal(press(document, 'k').defaultPrevented, false)
  press(document, 'K', { ctrlKey: true, shiftKey: true })
  press(document, 'k', { ctrlKey: true, altKey: true }) // AltGr of some keyboards
  press(document, 'k', { metaKey: true })
  press(document, 'k', { ctrlKey: true, metaKey: true })
  press(document, 'o', { ctrlKey: true })
  press(document, 'Escape', { shiftKey: true })
  assert.deepEqual(done, [])
})

test("on Apple's systems it is the command key, and Ctrl keeps its meaning", () => {
  const { document, done, shortcuts } = setUp([['Mod+K'], ['Mod+Shift+O']], true)
  press(document, 'k', { ctrlKey: true })
  assert.deepEqual(done, [])
  press(document, 'k', { metaKey: true })
  assert.deepEqual(done, ['Mod+K'])
  assert.deepEqual(shortcuts.names(shortcuts.table[1]), ['⌘', '⇧', 'O'])
})

test('the names are those on the keyboard', () => {
  const { shortcuts } = setUp([['Mod+/'], ['ArrowUp'], ['Shift+Enter'], ['Escape']])
  assert.deepEqual(
    shortcuts.table.map((shortcut) => shortcuts.names(shortcut).join(' ')),
    ['Ctrl /', '↑', 'Shift Enter', 'Esc'],
  )
})

test('a sign is found where the keyboard needs Shift for it', () => {
  const { document, done } = setUp([['Mod+/']])
  press(document, '/', { ctrlKey: true, shiftKey: true, code: 'Digit7' })
  assert.deepEqual(done, ['Mod+/'])
})

test('a letter is found by its place on keyboards of another script, and only on those', () => {
  const { document, done } = setUp([['Mod+K']])
  press(document, 'л', { ctrlKey: true, code: 'KeyK' })
  assert.deepEqual(done, ['Mod+K'])
  press(document, 't', { ctrlKey: true, code: 'KeyK' }) // Dvorak
  assert.deepEqual(done, ['Mod+K'])
})

test('what does not apply leaves the key to the next one, and to the browser', () => {
  const { document, done } = setUp([
    ['Escape', undefined, false],
    ['Escape', undefined, false],
  ])
  assert.equal(press(document, 'Escape').defaultPrevented, false)
  assert.equal(done.length, 2)
  const first = setUp([['Escape'], ['Escape']])
  press(first.document, 'Escape')
  assert.equal(first.done.length, 1)
})

test('nothing happens while an input method composes, or behind a dialog', () => {
  const { document, done } = setUp([['Escape'], ['Enter']])
  press(document, 'Escape', { isComposing: true })
  press(document, 'Enter', { keyCode: 229 })
  document.dialog = {}
  press(document, 'Escape')
  assert.deepEqual(done, [])
})

test('what somebody else has made of a key is theirs', () => {
  const { document, done } = setUp([['Escape']])
  const event = Object.assign(new Event('keydown', { cancelable: true }), { key: 'Escape' })
  event.preventDefault()
  document.dispatchEvent(event)
  assert.deepEqual(done, [])
})

test('a shortcut of one element holds nowhere else, and what the browser does is only listed', () => {
  const prompt = new EventTarget()
  const { document, done, shortcuts } = setUp([['Enter', prompt]])
  press(document, 'Enter')
  assert.deepEqual(done, [])
  press(prompt, 'Enter')
  assert.deepEqual(done, ['Enter'])
  const listed = new Shortcuts([{ keys: 'Shift+Enter', does: 'Breaks the line', run: null }], {
    document,
    apple: false,
  })
  const event = press(document, 'Enter', { shiftKey: true })
  assert.equal(event.defaultPrevented, false)
  assert.equal(listed.table.length + shortcuts.table.length, 2)
})
