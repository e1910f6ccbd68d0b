import assert from 'node:assert/strict'
import { test } from 'node:test'

import { giveUp, judge, nowhere, precedes, read, take } from '../../static/js/guard.js'

const token = (stream_id, epoch, seq) => ({ type: 'token', stream_id, epoch, seq })
const thinking = (stream_id, epoch) => ({
  ...{ type: 'status', status: 'thinking', stream_id, epoch, seq: 1 },
})
const queued = (stream_id, epoch, seq, position = 1) => ({
  ...{ type: 'status', status: 'queued', position, stream_id, epoch, seq },
})
const done = (stream_id, epoch, seq) => ({ type: 'done', stream_id, epoch, seq })

/** A view that has read these streams' frames. */
function viewOf(...frames) {
  const view = nowhere()
  for (const frame of frames) {
    if (!view.cursors.has(frame.stream_id)) read(view, frame.stream_id)
    assert.equal(judge(view, frame), 'next')
    take(view, frame)
  }
  return view
}

const live = [thinking('a', 5), token('a', 5, 2), token('a', 5, 3)]

// Every cell: a frame, and what it is to the view.
const tables = {
  'in the middle of a stream': [
    viewOf(...live),
    [
      [token('a', 5, 1), 'duplicate'],
      [token('a', 5, 3), 'duplicate'],
      [token('a', 5, 4), 'next'],
      [done('a', 5, 4), 'next'],
      [token('a', 5, 5), 'gap'],
      [token('a', 4, 4), 'stale'],
      [thinking('b', 4), 'stale'],
      [token('b', 4, 4), 'stale'],
      [thinking('b', 5), 'unknown'], // it will wait in the queue
      [thinking('b', 6), 'unknown'],
    ],
  ],
  'when the stream has ended': [
    viewOf(...live, done('a', 5, 4)),
    [
      [done('a', 5, 4), 'duplicate'],
      [token('a', 5, 5), 'stale'],
      [thinking('b', 6), 'unknown'],
    ],
  ],
  'when another waits behind it': [
    viewOf(...live, thinking('b', 5), queued('b', 5, 2)),
    [
      [token('a', 5, 4), 'next'],
      [queued('b', 5, 3), 'next'],
      [token('b', 6, 3), 'next'],
    ],
  ],
  'when the one that waited speaks': [
    viewOf(...live, thinking('b', 5), queued('b', 5, 2), token('b', 6, 3)),
    [
      [token('a', 5, 4), 'next'], // on its way on another connection
      [done('a', 5, 4), 'next'],
      [token('b', 6, 4), 'next'],
      [thinking('c', 6), 'unknown'],
    ],
  ],
  'when a second one waits, behind one that has not spoken yet': [
    viewOf(...live, thinking('b', 5), queued('b', 5, 2), thinking('c', 6), queued('c', 6, 2)),
    [
      [token('a', 5, 4), 'next'],
      [token('b', 6, 3), 'next'],
      [token('c', 7, 3), 'next'],
    ],
  ],
  'when a newer one has begun': [
    viewOf(...live, thinking('b', 6)),
    [
      [done('a', 5, 4), 'next'],
      [token('b', 6, 2), 'next'],
    ],
  ],
  'when a newer one has spoken': [
    viewOf(...live, thinking('b', 6), token('b', 6, 2)),
    [
      [token('a', 5, 4), 'stale'],
      [done('a', 5, 4), 'next'],
      [done('a', 5, 5), 'gap'],
      [thinking('c', 5), 'stale'],
      [token('b', 6, 3), 'next'],
    ],
  ],
}

for (const [name, [view, cells]] of Object.entries(tables)) {
  for (const [frame, verdict] of cells) {
    const { type, seq, stream_id, epoch } = frame
    test(`${name}: ${type} ${seq} of ${stream_id} in epoch ${epoch} is ${verdict}`, () => {
      assert.equal(judge(view, frame), verdict)
    })
  }
  test(`${name}: a frame without seq is a reply`, () => {
    assert.equal(judge(view, { stream_id: 'a', epoch: 5 }), 'reply')
  })
}

test('a reader that knows nothing knows no stream', () => {
  assert.equal(judge(nowhere(), token('a', 1, 1)), 'unknown')
})

test('of a stream that was given up nothing counts any more', () => {
  const view = viewOf(...live)
  giveUp(view, 'a')
  assert.equal(judge(view, token('a', 5, 4)), 'stale')
  assert.equal(judge(view, done('a', 5, 4)), 'stale')
})

test('a stream that is read from its middle takes nobody’s place: it may have waited', () => {
  const view = viewOf(...live)
  read(view, 'b', 7)
  take(view, token('b', 6, 8))
  assert.equal(judge(view, token('a', 5, 4)), 'next')
  assert.equal(judge(view, token('b', 6, 9)), 'next')
})

test('judging changes nothing', () => {
  const view = viewOf(...live)
  const before = structuredClone(view)
  judge(view, token('a', 5, 4))
  judge(view, thinking('b', 6))
  assert.deepEqual(view, before)
})

test('whatever the order of arrival, an older text never goes on after a newer one', () => {
  const frames = [1, 2].flatMap((epoch) => [
    thinking(`s${epoch}`, epoch),
    token(`s${epoch}`, epoch, 2),
    token(`s${epoch}`, epoch, 3),
  ])
  for (const order of permutations(frames)) {
    const view = nowhere()
    read(view, 's1')
    read(view, 's2')
    let newest = 0
    const last = { s1: 0, s2: 0 }
    for (const frame of order) {
      if (judge(view, frame) !== 'next') continue
      take(view, frame)
      assert.equal(frame.seq, ++last[frame.stream_id])
      if (frame.type !== 'token') continue
      assert.ok(frame.epoch >= newest)
      newest = frame.epoch
    }
  }
})

function* permutations(items) {
  if (items.length === 0) yield []
  for (const [index, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(index, 1))) yield [item, ...rest]
  }
}

test('what was there before another stream spoke: by its epoch, where it has one', () => {
  const view = nowhere()
  const newer = { epoch: 7 }
  assert.equal(precedes(view, 'out of the history', newer), true)
  read(view, 'asked for')
  assert.equal(precedes(view, 'asked for', newer), false) // it may come after it
  take(view, { type: 'status', stream_id: 'asked for', epoch: 6, seq: 1 })
  assert.equal(precedes(view, 'asked for', newer), true)
  take(view, { type: 'status', stream_id: 'asked for', epoch: 8, seq: 2 })
  assert.equal(precedes(view, 'asked for', newer), false)
  read(view, 'read from its middle', 5)
  assert.equal(precedes(view, 'read from its middle', newer), true)
})
