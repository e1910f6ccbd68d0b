import assert from 'node:assert/strict'
import { test } from 'node:test'

import { MAX_HELD, OpenResponses } from '../../static/js/open-responses.js'

/** The channels of the tabs of one browser: a message reaches all but its sender, at once. */
function browser() {
  /** @type {Set<any>} */
  const open = new Set()
  return class Channel {
    onmessage = null
    constructor() {
      open.add(this)
    }
    /** @param {unknown} data */
    postMessage(data) {
      for (const other of [...open]) if (other !== this) other.onmessage?.({ data })
    }
    close() {
      open.delete(this)
    }
  }
}

/** @param {import('node:test').TestContext} t */
function tabs(t, count = MAX_HELD + 1) {
  t.mock.timers.enable({ apis: ['setInterval', 'Date'] })
  const Channel = /** @type {any} */ (browser())
  return Array.from({ length: count }, () => new OpenResponses('host', Date.now, Channel))
}

test('the tabs agree whether too many responses are open', (t) => {
  const all = tabs(t)
  for (const tab of all.slice(0, MAX_HELD)) tab.opened()
  assert.deepEqual(all.map((tab) => tab.isCrowded), all.map(() => false))
  all[MAX_HELD].opened()
  assert.deepEqual(all.map((tab) => tab.isCrowded), all.map(() => true))
  all[0].closed()
  assert.deepEqual(all.map((tab) => tab.isCrowded), all.map(() => false))
  for (const tab of all.slice(1)) tab.closed()
})

test('a tab that was closed without a word is forgotten, one that goes on is not', (t) => {
  const all = tabs(t)
  for (const tab of all) tab.opened()
  t.mock.timers.tick(600_000)
  assert.ok(all.every((tab) => tab.isCrowded))
  for (const tab of all.slice(1)) tab.closed()
  assert.equal(all[0].isCrowded, false)
  all[0].closed()
})

test('a tab without a channel counts its own responses', () => {
  const tab = new OpenResponses('host', Date.now, undefined)
  for (let count = 0; count <= MAX_HELD; count++) tab.opened()
  assert.equal(tab.isCrowded, true)
})
