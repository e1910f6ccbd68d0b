import assert from 'node:assert/strict'
import { webcrypto } from 'node:crypto'
import { test } from 'node:test'

import { newId } from '../../static/js/ids.js'

const CANONICAL = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('an id is a canonical lower-case UUID, never the same twice', () => {
  const ids = Array.from({ length: 1000 }, () => newId(webcrypto))
  for (const id of ids) assert.match(id, CANONICAL)
  assert.equal(new Set(ids).size, ids.length)
})

test('so it is on plain http, where there is no randomUUID', () => {
  const insecure = { getRandomValues: (array) => webcrypto.getRandomValues(array) }
  const ids = Array.from({ length: 1000 }, () => newId(insecure))
  for (const id of ids) assert.match(id, CANONICAL)
  assert.equal(new Set(ids).size, ids.length)
})
