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

const summaries = (steps) => steps.map(({ kind, detail, state }) => `${kind} ${detail} ${state}`)

test('parallel calls of one tool are told apart by their call_id', () => {
  const call = (id, state, detail) => activity(tool('weather', state, detail, { call_id: id }))
  const begun = [call('a', 'running', 'Oslo'), call('b', 'running', 'Cairo')]
  assert.deepEqual(summaries(stepsOf(begun, true)), ['tool Oslo running', 'tool Cairo running'])
  const ended = [...begun, call('a', 'done', '-3 °C'), call('b', 'error', 'timeout')]
  const steps = stepsOf(ended, true)
  assert.deepEqual(summaries(steps), ['tool Oslo: -3 °C done', 'tool Cairo: timeout failed'])
  assert.equal(summaryOf(steps), '2 tool calls')
  const backwards = [...begun, call('b', 'error', 'timeout'), call('a', 'done', '-3 °C')]
  assert.deepEqual(summaries(stepsOf(backwards, false)), summaries(steps))
})

test('without a call_id a result of one of several calls stands for itself', () => {
  const call = (state, detail) => activity(tool('weather', state, detail))
  const begun = [call('running', 'Oslo'), call('running', 'Cairo')]
  assert.deepEqual(summaries(stepsOf([...begun, call('done', '-3 °C')], true)), [
    'tool Oslo running',
    'tool Cairo running',
    'result -3 °C done',
  ])
  const steps = stepsOf([...begun, call('done', '-3 °C'), call('error', 'timeout')], true)
  assert.deepEqual(summaries(steps), [
    'tool Oslo done',
    'tool Cairo done',
    'result -3 °C done',
    'result timeout failed',
  ])
  assert.equal(summaryOf(steps), '2 tool calls')
})

test('a call that ends while another tool runs is timed by its own beginning', () => {
  const steps = stepsOf(
    [
      activity(tool('one', 'running', ''), 0, 1),
      activity(tool('two', 'running', ''), 1, 3),
      activity(tool('one', 'done', 'x'), 3, 4),
    ],
    true,
  )
  assert.deepEqual(
    steps.map(({ state, duration }) => [state, duration]),
    [
      ['done', 3000],
      ['running', null],
    ],
  )
})
