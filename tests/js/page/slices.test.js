import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Slices } from '../../../static/js/page/slices.js'

/** Slices of pieces that take 3 ms each. */
function slices() {
  let now = 0
  const done = []
  const later = []
  const work = new Slices({ now: () => now, later: (run) => later.push(run) })
  const add = (name) =>
    work.add(() => {
      now += 3
      done.push(name)
    })
  return { work, add, done, next: () => later.shift()?.(), waiting: () => later.length }
}

test('the last is done first, as much as fits at once and the rest later', () => {
  const { work, add, done, next, waiting } = slices()
  for (const name of ['a', 'b', 'c', 'd', 'e']) add(name)
  work.run()
  assert.deepEqual(done, ['e', 'd', 'c'])
  work.run() // not twice at once
  assert.deepEqual(done, ['e', 'd', 'c'])
  add('f')
  next()
  assert.deepEqual(done, ['e', 'd', 'c', 'f', 'b', 'a'])
  assert.equal(waiting(), 0)
})

test('what is forgotten is not done', () => {
  const { work, add, done, next } = slices()
  for (const name of ['a', 'b', 'c', 'd']) add(name)
  work.run()
  work.clear()
  next()
  assert.deepEqual(done, ['d', 'c', 'b'])
})
