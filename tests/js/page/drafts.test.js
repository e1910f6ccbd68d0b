import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Drafts } from '../../../static/js/page/drafts.js'

/** Storage of a tab that survives its pages. */
function newTab() {
  /** @type {Map<string, string>} */
  const values = new Map()
  const sessionStorage = /** @type {Storage} */ ({
    get length() {
      return values.size
    },
    key: (index) => [...values.keys()][index] ?? null,
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => void values.set(key, value),
    removeItem: (key) => void values.delete(key),
    clear: () => values.clear(),
  })
  return { sessionStorage, values }
}

test('the next page of the tab has the drafts', () => {
  const tab = newTab()
  const drafts = new Drafts(tab)
  drafts.set('', 'new')
  drafts.set('a', 'first')
  drafts.set('b', 'second')
  drafts.set('b', '')
  const next = new Drafts(tab)
  assert.deepEqual(['', 'a', 'b'].map((id) => next.get(id)), ['new', 'first', ''])
})

test('locked drafts are hidden, and only the same principal sees them again', () => {
  for (const [principal, draft] of [['ann', 'secret'], ['bob', '']]) {
    const tab = newTab()
    const drafts = new Drafts(tab)
    drafts.unlock('ann')
    drafts.set('a', 'secret')
    drafts.lock()
    assert.equal(drafts.get('a'), '')
    const next = new Drafts(tab)
    assert.equal(next.get('a'), '')
    next.set('a', '') // the empty field of a page that waits for a sign-in
    next.unlock(principal ?? '')
    assert.equal(next.get('a'), draft)
  }
})

test('without storage, and with a full one, drafts last as long as the page', () => {
  const blocked = {
    get sessionStorage() {
      throw new Error('SecurityError')
    },
  }
  const { sessionStorage } = newTab()
  const full = {
    sessionStorage: {
      ...sessionStorage,
      length: 0,
      setItem() {
        throw new Error('QuotaExceededError')
      },
    },
  }
  for (const window of [blocked, full]) {
    const drafts = new Drafts(window)
    drafts.set('a', 'draft')
    assert.equal(drafts.get('a'), 'draft')
    drafts.clear()
    assert.equal(drafts.get('a'), '')
  }
})
