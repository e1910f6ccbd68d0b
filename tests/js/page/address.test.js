import assert from 'node:assert/strict'
import { test } from 'node:test'

import { currentSession, rememberSession } from '../../../static/js/page/address.js'

function fakeWindow(hash = '') {
  const location = { hash }
  const replaceState = (_state, _title, url) => void (location.hash = url)
  return { location, history: { state: null, replaceState } }
}

test('without one in the address it is a new session', () => {
  const first = currentSession(fakeWindow())
  assert.equal(first.known, false)
  assert.notEqual(currentSession(fakeWindow()).id, first.id)
})

test('a reload, and another tab with the same address, find the session again', () => {
  const window = fakeWindow()
  const { id } = currentSession(window)
  rememberSession(id, window)
  assert.deepEqual(currentSession(window), { id, known: true })
  assert.deepEqual(currentSession(fakeWindow(window.location.hash)), { id, known: true })
})

test('what is no session id in the address is ignored', () => {
  for (const hash of ['#session=', '#session=a%20b', `#session=${'x'.repeat(129)}`, '#other']) {
    assert.equal(currentSession(fakeWindow(hash)).known, false, hash)
  }
})
