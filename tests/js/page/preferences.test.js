import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setWhenBusy, whenBusy } from '../../../static/js/page/preferences.js'

function fakeWindow() {
  const kept = new Map()
  return { localStorage: { getItem: (key) => kept.get(key) ?? null, setItem: kept.set.bind(kept) } }
}

const blocked = {
  get localStorage() {
    throw new DOMException('denied', 'SecurityError')
  },
}

test('a message interrupts, until somebody chooses that it waits', () => {
  const window = fakeWindow()
  assert.equal(whenBusy(window), 'interrupt')
  setWhenBusy('enqueue', window)
  assert.equal(whenBusy(window), 'enqueue')
  setWhenBusy('interrupt', window)
  assert.equal(whenBusy(window), 'interrupt')
})

test('what an older or newer page has stored is no choice of this one', () => {
  const window = fakeWindow()
  setWhenBusy('something newer', window)
  assert.equal(whenBusy(window), 'interrupt')
})

test('with storage blocked it is the default, and choosing is no error', () => {
  assert.equal(whenBusy(blocked), 'interrupt')
  setWhenBusy('enqueue', blocked)
})
