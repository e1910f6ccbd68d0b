import assert from 'node:assert/strict'
import { test } from 'node:test'

import { currentSession, rememberSession } from '../../static/js/session.js'

function fakeWindow({ hash = '', blocked = false } = {}) {
  const kept = new Map()
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: kept.set.bind(kept) }
  return {
    location: { hash },
    history: {
      state: null,
      replaceState(_state, _title, url) {
        this.window.location.hash = url
      },
    },
    get sessionStorage() {
      if (blocked) throw new DOMException('denied', 'SecurityError')
      return storage
    },
    linked() {
      this.history.window = this
      return this
    },
  }
}

for (const blocked of [false, true]) {
  const where = blocked ? 'with storage blocked' : 'with storage'

  test(`a new tab begins a new session, ${where}`, () => {
    const first = currentSession(fakeWindow({ blocked }))
    assert.equal(first.known, false)
    assert.notEqual(currentSession(fakeWindow({ blocked })).id, first.id)
  })

  test(`a reload finds the session again, ${where}`, () => {
    const window = fakeWindow({ blocked }).linked()
    const { id } = currentSession(window)
    rememberSession(id, window)
    assert.deepEqual(currentSession(window), { id, known: true })
  })
}

test('a session in the address wins over the remembered one', () => {
  const window = fakeWindow({ hash: '#session=theirs' })
  rememberSession('mine', window)
  assert.deepEqual(currentSession(window), { id: 'theirs', known: true })
})

test('what is no session id in the address is ignored', () => {
  for (const hash of ['#session=', '#session=a%20b', `#session=${'x'.repeat(129)}`, '#other']) {
    assert.equal(currentSession(fakeWindow({ hash })).known, false, hash)
  }
})
