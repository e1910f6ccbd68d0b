import assert from 'node:assert/strict'
import { test } from 'node:test'

import { NOWHERE, awaiting, judge, viewAfter } from '../../static/js/guard.js'

const at = { epoch: 5, stream_id: 'a', seq: 3 }

// Every cell: which stream, which epoch against the view's, which seq against the view's.
const reading = [
  // stream, epoch, seq, verdict
  ['a', 5, 1, 'duplicate'],
  ['a', 5, 3, 'duplicate'],
  ['a', 5, 4, 'next'],
  ['a', 5, 5, 'gap'],
  ['a', 4, 1, 'stale'],
  ['a', 4, 4, 'stale'],
  ['a', 4, 9, 'stale'],
  ['b', 4, 1, 'stale'],
  ['b', 4, 4, 'stale'],
  ['b', 5, 1, 'stale'],
  ['b', 5, 4, 'stale'],
  ['b', 6, 1, 'next'],
  ['b', 6, 2, 'gap'],
  ['b', 6, 4, 'gap'],
]

// A message has been sent: stream `c` is ours and its epoch is not known yet.
const awaitingOurs = [
  ['c', 6, 1, 'next'],
  ['c', 6, 2, 'gap'],
  ['c', 5, 1, 'next'], // a stream that is loaded knows its epoch
  ['c', 4, 1, 'stale'],
  ['a', 5, 4, 'stale'],
  ['b', 4, 1, 'stale'],
  ['b', 6, 1, 'stale'],
  ['b', 7, 3, 'stale'],
]

// Nothing is awaited any more: only something newer counts.
const awaitingNone = [
  ['a', 5, 4, 'stale'],
  ['a', 4, 4, 'stale'],
  ['b', 5, 1, 'stale'],
  ['b', 6, 1, 'next'],
  ['b', 6, 2, 'gap'],
]

for (const [name, view, cells] of [
  ['in the middle of a stream', at, reading],
  ['awaiting its own stream', awaiting(at, 'c'), awaitingOurs],
  ['awaiting nothing', awaiting(at, null), awaitingNone],
]) {
  for (const [stream_id, epoch, seq, verdict] of cells) {
    test(`${name}: frame ${seq} of ${stream_id} in epoch ${epoch} is ${verdict}`, () => {
      assert.equal(judge(view, { stream_id, epoch, seq }), verdict)
    })
  }
  test(`${name}: a frame without seq is a reply`, () => {
    assert.equal(judge(view, { stream_id: 'a', epoch: 5 }), 'reply')
  })
}

test('a reader that knows nothing takes the first frame of anything', () => {
  assert.equal(judge(NOWHERE, { stream_id: 'a', epoch: 1, seq: 1 }), 'next')
  assert.equal(judge(NOWHERE, { stream_id: 'a', epoch: 1, seq: 2 }), 'gap')
})

test('the view moves to the frame, and the epoch outlives the stream', () => {
  const view = viewAfter({ epoch: 5, stream_id: 'a', seq: 4, type: 'token' })
  assert.deepEqual(view, { epoch: 5, stream_id: 'a', seq: 4 })
  assert.deepEqual(awaiting(view, 'b'), { epoch: 5, stream_id: 'b', seq: 0 })
})

test('whatever the order of arrival, an older stream never follows a newer one', () => {
  const frames = [1, 2].flatMap((epoch) =>
    [1, 2, 3].map((seq) => ({ epoch, stream_id: `s${epoch}`, seq })),
  )
  for (const order of permutations(frames)) {
    let view = NOWHERE
    for (const frame of order) {
      if (judge(view, frame) !== 'next') continue
      assert.ok(frame.epoch >= view.epoch)
      assert.ok(frame.epoch > view.epoch ? frame.seq === 1 : frame.seq === view.seq + 1)
      view = viewAfter(frame)
    }
  }
})

function* permutations(items) {
  if (items.length === 0) yield []
  for (const [index, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(index, 1))) yield [item, ...rest]
  }
}
