import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Address } from '../../../static/js/page/address.js'

/** A window with a history of addresses. */
class FakeWindow extends EventTarget {
  entries = ['/']
  at = 0
  history = {
    pushState: (_state, _title, url) => {
      this.entries.splice(++this.at, Infinity, url)
    },
    replaceState: (_state, _title, url) => {
      this.entries[this.at] = url
    },
  }

  constructor(hash = '') {
    super()
    this.entries = [`/${hash}`]
  }

  get location() {
    const [pathname, hash = ''] = this.entries[this.at].split('#')
    return { pathname, search: '', hash: hash && `#${hash}` }
  }

  back() {
    this.at -= 1
    this.dispatchEvent(new Event('popstate'))
  }
}

test('without one in the address it is a new conversation', () => {
  assert.equal(new Address(new FakeWindow()).session, undefined)
})

test('a reload, and another tab with the same address, find the conversation again', () => {
  const window = new FakeWindow()
  new Address(window).name('a:b.c-1')
  assert.equal(window.entries.length, 1)
  assert.equal(new Address(window).session, 'a:b.c-1')
  assert.equal(new Address(new FakeWindow(window.location.hash)).session, 'a:b.c-1')
})

test('what is no session id in the address is ignored', () => {
  for (const hash of ['#session=', '#session=a%20b', `#session=${'x'.repeat(129)}`, '#other']) {
    assert.equal(new Address(new FakeWindow(hash)).session, undefined, hash)
  }
})

test('back leads to the conversation before, and says so', () => {
  const window = new FakeWindow()
  const address = new Address(window)
  const seen = []
  address.subscribe((id) => seen.push(id))
  address.push('one')
  address.push('one') // again: nothing to come back from
  address.push('two')
  address.push()
  assert.equal(window.entries.length, 4)
  for (let times = 3; times > 0; times -= 1) window.back()
  assert.deepEqual(seen, ['two', 'one', undefined])
})
