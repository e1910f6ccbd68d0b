import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import vm from 'node:vm'

import { bindPreference, createPreferences } from '../../../static/js/page/preferences.js'
import { applyTheme } from '../../../static/js/page/theme.js'

/** Windows of one browser: they share what is stored, and hear of what another one stores. */
class FakeBrowser {
  kept = new Map()
  windows = []

  open() {
    const window = new EventTarget()
    window.localStorage = {
      getItem: (key) => this.kept.get(key) ?? null,
      setItem: (key, newValue) => {
        this.kept.set(key, newValue)
        for (const other of this.windows) {
          if (other === window) continue
          other.dispatchEvent(Object.assign(new Event('storage'), { key, newValue }))
        }
      },
    }
    this.windows.push(window)
    return window
  }
}

const fakeWindow = () => new FakeBrowser().open()

function blockedWindow() {
  return Object.defineProperty(new EventTarget(), 'localStorage', {
    get() {
      throw new DOMException('denied', 'SecurityError')
    },
  })
}

test('a message interrupts, until somebody chooses that it waits', () => {
  const window = fakeWindow()
  assert.equal(createPreferences(window).whenBusy.value, 'interrupt')
  createPreferences(window).whenBusy.value = 'enqueue'
  assert.equal(createPreferences(window).whenBusy.value, 'enqueue')
  createPreferences(window).whenBusy.value = 'interrupt'
  assert.equal(createPreferences(window).whenBusy.value, 'interrupt')
})

test('what an older or newer page has stored is no choice of this one', () => {
  const window = fakeWindow()
  createPreferences(window).whenBusy.value = 'something newer'
  assert.equal(createPreferences(window).whenBusy.value, 'interrupt')
})

test('with storage blocked it is the default, and a choice holds while the page is open', () => {
  const { whenBusy } = createPreferences(blockedWindow())
  assert.equal(whenBusy.value, 'interrupt')
  whenBusy.value = 'enqueue'
  assert.equal(whenBusy.value, 'enqueue')
})

test('who listens hears of a change here and in another tab, once, and until they leave', () => {
  const browser = new FakeBrowser()
  const here = createPreferences(browser.open()).theme
  const there = createPreferences(browser.open()).theme
  const heard = []
  const leave = here.subscribe(() => heard.push(here.value))
  here.value = 'dark'
  here.value = 'dark'
  there.value = 'light'
  leave()
  here.value = 'system'
  assert.deepEqual(heard, ['dark', 'light'])
  assert.equal(there.value, 'system')
})

test('a tab that clears the storage takes the choice back in every tab', () => {
  const window = fakeWindow()
  const { theme } = createPreferences(window)
  theme.value = 'dark'
  window.dispatchEvent(Object.assign(new Event('storage'), { key: null, newValue: null }))
  assert.equal(theme.value, 'system')
})

test('two controls of one choice show the same', () => {
  const { whenBusy } = createPreferences(fakeWindow())
  const controls = [new EventTarget(), new EventTarget()]
  for (const control of controls) bindPreference(control, whenBusy)
  controls[0].value = 'enqueue'
  controls[0].dispatchEvent(new Event('change'))
  assert.equal(whenBusy.value, 'enqueue')
  assert.equal(controls[1].value, 'enqueue')
})

test('a theme is marked on the page, and the one of the system is not', () => {
  const { theme } = createPreferences(fakeWindow())
  const root = { dataset: {} }
  applyTheme(theme, root)
  assert.deepEqual(root.dataset, {})
  theme.value = 'dark'
  assert.deepEqual(root.dataset, { theme: 'dark' })
  theme.value = 'light'
  assert.deepEqual(root.dataset, { theme: 'light' })
  theme.value = 'system'
  assert.deepEqual(root.dataset, {})
})

test('what is done before the first paint is what is done after it', () => {
  const file = new URL('../../../static/js/page/theme-early.js', import.meta.url)
  const early = new vm.Script(readFileSync(file, 'utf8'))
  for (const chosen of ['light', 'dark', 'system', 'something newer', null]) {
    const window = fakeWindow()
    if (chosen) createPreferences(window).theme.value = chosen
    const [before, after] = [{ dataset: {} }, { dataset: {} }]
    early.runInNewContext({
      localStorage: window.localStorage,
      document: { documentElement: before },
    })
    applyTheme(createPreferences(window).theme, after)
    assert.deepEqual(before, after, String(chosen))
  }
  const page = { dataset: {} }
  early.runInNewContext(
    Object.defineProperty({ document: { documentElement: page } }, 'localStorage', {
      get() {
        throw new DOMException('denied', 'SecurityError')
      },
    }),
  )
  assert.deepEqual(page, { dataset: {} })
})
