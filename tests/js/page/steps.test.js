import assert from 'node:assert/strict'
import { test } from 'node:test'

import { stepsOf, summaryOf } from '../../../static/js/page/steps.js'

/** An activity from one second to another. */
const activity = (fields, from = 0, to = 1) => ({
  name: null,
  detail: null,
  started_at: from * 1000,
  ended_at: to === null ? null : to * 1000,
  ...fields,
})

const tool = (name, state, detail, more = {}) => ({ status: 'tool', name, state, detail, ...more })

test('a tool that says that it runs and then how it ended is one step', () => {
  const steps = stepsOf(
    [
      activity({ status: 'reasoning', detail: 'Choosing a tool' }),
      activity(tool('search', 'running', 'a protocol'), 1, 2),
      activity(tool('search', 'done', '3 results', { duration_ms: 600 }), 2, 3),
      activity(tool('clock', 'running', 'UTC'), 3, 4),
      activity(tool('clock', 'error', 'no such zone', { duration_ms: 100 }), 4, 4),
    ],
    true,
  )
  assert.deepEqual(steps, [
    {
      kind: 'thought',
      name: 'Reasoning',
      detail: 'Choosing a tool',
      state: 'done',
      duration: 1000,
    },
    { kind: 'tool', name: 'search', detail: 'a protocol: 3 results', state: 'done', duration: 600 },
    { kind: 'tool', name: 'clock', detail: 'UTC: no such zone', state: 'failed', duration: 100 },
  ])
  assert.equal(summaryOf(steps), '2 tool calls · 1.7 s')
})

test('the last one runs for as long as the answer is open, and only then', () => {
  const activities = [activity(tool('search', 'running', 'x'), 0, null)]
  const [open] = stepsOf(activities, true)
  assert.deepEqual([open.state, open.duration], ['running', null])
  assert.equal(summaryOf([open]), 'Using search')
  assert.equal(stepsOf(activities, false)[0].state, 'done')
})

test('a tool whose agent says neither is timed by what comes next', () => {
  const plain = (name, from, to) => activity({ status: 'tool', name }, from, to)
  const steps = stepsOf([plain('search', 0, 2), plain('search', 2, 3)], false)
  assert.deepEqual(
    steps.map(({ name, state, duration }) => [name, state, duration]),
    [
      ['search', 'done', 2000],
      ['search', 'done', 1000],
    ],
  )
})

test('two tools at once do not end one another', () => {
  const steps = stepsOf(
    [
      activity(tool('one', 'running', '')),
      activity(tool('two', 'running', '')),
      activity(tool('two', 'done', 'second', { duration_ms: 5 })),
    ],
    false,
  )
  assert.deepEqual(steps.map(({ name, detail }) => [name, detail]), [
    ['one', ''],
    ['two', 'second'],
  ])
})

test('out of the history nothing is known of the time', () => {
  const [step] = stepsOf(
    [{ status: 'reasoning', name: null, detail: null, started_at: null, ended_at: null }],
    false,
  )
  assert.equal(step.duration, null)
  assert.equal(summaryOf([step]), '1 step')
})
