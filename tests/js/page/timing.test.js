import assert from 'node:assert/strict'
import { test } from 'node:test'

import { endingOf, timingOf } from '../../../static/js/page/timing.js'

const answer = {
  created_at: 1000,
  started_at: 2000,
  ended_at: null,
  tokens: 100,
  usage: null,
  finish_reason: null,
  trace_id: null,
}

test('a running answer is timed from the question on, its rate from the first piece on', () => {
  assert.equal(timingOf({ ...answer, started_at: null, tokens: 0 }, 2500), '1.5 s')
  assert.equal(timingOf(answer, 4000), '3.0 s · 50 pieces/s')
})

test('one that has ended keeps its time, and what the model counted', () => {
  const usage = { completion_tokens: 1234 }
  const ended = { ...answer, ended_at: 12_000, usage }
  assert.equal(timingOf(ended, null), '11 s · 123 tokens/s · 1,234 tokens')
})

test('the rate counts the tokens of the model, and not those of its reasoning', () => {
  const twenty = { ...answer, started_at: 1000, ended_at: 3000, tokens: 20 }
  assert.equal(timingOf({ ...twenty, usage: { completion_tokens: 400 } }, null),
    '2.0 s · 200 tokens/s · 400 tokens')
  const usage = { completion_tokens: 500, completion_tokens_details: { reasoning_tokens: 300 } }
  assert.equal(timingOf({ ...twenty, usage }, null), '2.0 s · 100 tokens/s · 500 tokens')
  assert.equal(timingOf({ ...twenty, usage: { completion_tokens_details: null } }, null),
    '2.0 s · 10 pieces/s')
})

test('where a time is not known nothing is said', () => {
  assert.equal(timingOf({ ...answer, created_at: null }, 4000), '')
  assert.equal(timingOf(answer, null), '')
})

test('how it ended is told in words', () => {
  assert.equal(endingOf(answer), '')
  assert.equal(
    endingOf({ ...answer, finish_reason: 'length', trace_id: 'abc' }),
    'Finish reason: ended at the length limit\nTrace id: abc',
  )
  assert.equal(endingOf({ ...answer, finish_reason: 'new' }), 'Finish reason: new')
})
