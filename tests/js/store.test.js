import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ConnectionLost, Refused } from '../../static/js/errors.js'
import { ChatStore } from '../../static/js/store.js'
import { FakeStream, FakeTransport, TRACE, settle } from './fakes.js'

function chat(options) {
  const transport = new FakeTransport()
  const store = new ChatStore({ transport, session_id: 's', lastFrameTimeout: 20, ...options })
  const answers = () =>
    store
      .getSnapshot()
      .messages.filter(({ role }) => role === 'assistant')
      .map(({ status, content }) => [status, content])
  return { transport, store, answers }
}

/** Sends, and lets the server take it. */
async function ask({ transport, store }, prompt, epoch) {
  const ended = store.send(prompt)
  await settle()
  const reading = transport.readings.at(-1)
  reading.accept()
  return { ended, reading, stream: new FakeStream(reading.stream_id, epoch) }
}

test('an answer goes from thinking over streaming to complete', async () => {
  const { transport, store, answers } = chat()
  const { ended, reading, stream } = await ask({ transport, store }, 'hello', 1)
  assert.deepEqual(answers(), [['thinking', '']])
  reading.deliver(stream.thinking())
  assert.deepEqual(answers(), [['thinking', '']])
  reading.deliver(stream.token('Hi '))
  assert.deepEqual(answers(), [['streaming', 'Hi ']])
  assert.equal(store.getSnapshot().busy, true)
  reading.deliver(stream.token('there'), stream.done())
  reading.end()
  await ended
  assert.deepEqual(answers(), [['complete', 'Hi there']])
  assert.equal(store.getSnapshot().busy, false)
})

test('the request says who asks, which stream it is, and that a blink is no stop', async () => {
  const { transport, store } = chat()
  const { reading } = await ask({ transport, store }, 'hello', 1)
  assert.deepEqual(reading.request, {
    prompt: 'hello',
    session_id: 's',
    stream_id: store.getSnapshot().messages[1].stream_id,
    on_disconnect: 'continue',
  })
})

test('question and answer are there as soon as send returns', () => {
  const { store } = chat()
  store.send('hello')
  assert.deepEqual(
    store.getSnapshot().messages.map(({ role, status, content }) => [role, status, content]),
    [
      ['user', 'complete', 'hello'],
      ['assistant', 'thinking', ''],
    ],
  )
  store.close()
})

test('a snapshot never changes, and keeps the messages that did not', async () => {
  const { transport, store } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  const before = store.getSnapshot()
  assert.equal(store.getSnapshot(), before)
  reading.deliver(stream.thinking(), stream.token('Hi'))
  const after = store.getSnapshot()
  assert.notEqual(after, before)
  assert.equal(before.messages[1].content, '')
  assert.equal(after.messages[0], before.messages[0])
  assert.ok(Object.isFrozen(after) && Object.isFrozen(after.messages))
  assert.ok(after.messages.every(Object.isFrozen))
})

test('subscribers hear of every change until they unsubscribe', async () => {
  const { transport, store } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  let changes = 0
  const unsubscribe = store.subscribe(() => (changes += 1))
  reading.deliver(stream.thinking(), stream.token('a'))
  assert.equal(changes, 2)
  unsubscribe()
  reading.deliver(stream.token('b'))
  assert.equal(changes, 2)
})

test('stale, duplicate and reordered frames change nothing, and are counted', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 5)
  const [thinking, a, b, c] = [stream.thinking(), ...'abc'.split('').map((t) => stream.token(t))]
  const old = new FakeStream('11111111-1111-4111-8111-111111111111', 4)
  const verdicts = reading.deliver(thinking, a, a, ...old.answer('OLD'), c, thinking, b, c)
  assert.deepEqual(answers(), [['streaming', 'abc']])
  assert.deepEqual(verdicts, [
    ...['next', 'next', 'duplicate', 'stale', 'stale', 'stale', 'gap'],
    ...['duplicate', 'next', 'next'],
  ])
  assert.deepEqual(store.dropped, { stale: 3, duplicate: 2, gap: 1, reply: 0 })
})

test('a second message replaces the first, whose text is frozen from then on', async () => {
  const { transport, store, answers } = chat()
  const first = await ask({ transport, store }, 'one', 1)
  first.reading.deliver(first.stream.thinking(), first.stream.token('FIRST '))
  const second = await ask({ transport, store }, 'two', 2)
  first.reading.deliver(first.stream.token('late '), first.stream.done('superseded'))
  second.reading.deliver(second.stream.thinking(), second.stream.token('second'))
  first.reading.deliver(first.stream.token('later'))
  second.reading.deliver(second.stream.done())
  second.reading.end()
  await Promise.all([first.ended, second.ended])
  assert.deepEqual(answers(), [
    ['replaced', 'FIRST '],
    ['complete', 'second'],
  ])
})

test('frames of the first that come before anything of the second are dropped too', async () => {
  const { transport, store, answers } = chat()
  const first = await ask({ transport, store }, 'one', 1)
  const second = await ask({ transport, store }, 'two', 2)
  // The client has never seen an epoch, yet knows which stream is its own.
  first.reading.deliver(...first.stream.answer('FIRST'))
  assert.deepEqual(answers(), [
    ['replaced', ''],
    ['thinking', ''],
  ])
  second.reading.deliver(...second.stream.answer('second'))
  assert.deepEqual(answers().at(-1), ['complete', 'second'])
})

test('of two sends in one tick the second reaches the server after the first', async () => {
  const { transport, store, answers } = chat()
  store.send('one')
  store.send('two')
  await settle()
  assert.deepEqual(transport.readings.map(({ request }) => request.prompt), ['one'])
  transport.readings[0].accept()
  await settle()
  assert.deepEqual(transport.readings.map(({ request }) => request.prompt), ['one', 'two'])
  assert.equal(transport.readings[0].left, true)
  const stream = new FakeStream(transport.readings[1].stream_id, 2)
  transport.readings[1].deliver(...stream.answer('second'))
  assert.deepEqual(answers(), [
    ['replaced', ''],
    ['complete', 'second'],
  ])
})

test('stop before the first frame stops, and is done when the server says so', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream, ended } = await ask({ transport, store }, 'hello', 1)
  let stopped = false
  const stopping = store.stop().then(() => (stopped = true))
  assert.equal(store.getSnapshot().stopping, true)
  await settle()
  assert.equal(stopped, false)
  assert.equal(transport.cancels[0].stream_id, reading.stream_id)
  reading.deliver(stream.thinking(), stream.done('cancelled'))
  reading.end()
  transport.cancels[0].resolve({ cancelled: true })
  await Promise.all([stopping, ended])
  assert.deepEqual(answers(), [['stopped', '']])
  assert.equal(store.getSnapshot().stopping, false)
})

test('pieces that arrive before the server has stopped are shown', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('a'))
  const stopping = store.stop()
  reading.deliver(stream.token('b'), stream.done('cancelled'))
  reading.end()
  transport.cancels[0].resolve({ cancelled: true })
  await stopping
  assert.deepEqual(answers(), [['stopped', 'ab']])
})

test('when the last frame of a stopped answer never comes, it is stopped all the same', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  const stopping = store.stop()
  transport.cancels[0].resolve({ cancelled: true })
  await stopping
  reading.deliver(...stream.answer('much too late'))
  assert.deepEqual(answers(), [['stopped', '']])
  assert.equal(reading.left, true)
})

test('a stop of a stream the server does not know is a stop', async () => {
  const { transport, store, answers } = chat()
  await ask({ transport, store }, 'hello', 1)
  const stopping = store.stop()
  transport.cancels[0].reject(new Refused('not_found', 'Unknown.'))
  await stopping
  assert.deepEqual(answers(), [['stopped', '']])
})

test('a stop that cannot be told to the server is said, and the answer goes on', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  const stopping = store.stop()
  transport.cancels[0].reject(new ConnectionLost('The server cannot be reached.'))
  await stopping
  assert.equal(store.getSnapshot().error, 'Could not stop: The server cannot be reached.')
  assert.equal(store.getSnapshot().stopping, false)
  reading.deliver(...stream.answer('on'))
  assert.deepEqual(answers(), [['complete', 'on']])
})

test('stop and send at once: the old one is stopped, the new one is not', async () => {
  const { transport, store, answers } = chat()
  const first = await ask({ transport, store }, 'one', 1)
  first.reading.deliver(first.stream.thinking(), first.stream.token('FIRST'))
  const stopping = store.stop()
  const second = await ask({ transport, store }, 'two', 2)
  second.reading.deliver(second.stream.thinking(), second.stream.token('second'))
  transport.cancels[0].resolve({ cancelled: true })
  await stopping
  assert.equal(transport.cancels.length, 1)
  assert.equal(transport.cancels[0].stream_id, first.reading.stream_id)
  assert.deepEqual(answers(), [
    ['stopped', 'FIRST'],
    ['streaming', 'second'],
  ])
})

test('stop with nothing to stop does nothing', async () => {
  const { transport, store } = chat()
  await store.stop()
  assert.deepEqual(transport.cancels, [])
})

for (const [finish_reason, status] of [
  ['stop', 'complete'],
  ['length', 'complete'],
  ['cancelled', 'stopped'],
  ['superseded', 'replaced'],
  ['shutdown', 'interrupted'],
  ['something newer', 'complete'],
]) {
  test(`an answer that ends with "${finish_reason}" is ${status}`, async () => {
    const { transport, store, answers } = chat()
    const { reading, stream } = await ask({ transport, store }, 'hello', 1)
    reading.deliver(stream.thinking(), stream.token('a'), stream.done(finish_reason))
    assert.deepEqual(answers(), [[status, 'a']])
    assert.equal(store.getSnapshot().messages[1].finish_reason, finish_reason)
  })
}

test('an error frame ends the answer with its sentence and its trace', async () => {
  const { transport, store } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('a'), stream.error('upstream_error', 'Sorry.'))
  const { status, content, error, trace_id } = store.getSnapshot().messages[1]
  assert.deepEqual([status, content, trace_id], ['error', 'a', TRACE])
  assert.deepEqual(error, { code: 'upstream_error', error: 'Sorry.' })
})

test('unknown statuses and unknown frame types are ignored', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.frame({ type: 'hologram' }), stream.token('a'))
  assert.deepEqual(answers(), [['streaming', 'a']])
})

test('what the agent does besides speaking is shown until it speaks', async () => {
  const { transport, store } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.frame({ type: 'status', status: 'tool', name: 'search' }))
  assert.equal(store.getSnapshot().messages[1].activity, 'search')
  reading.deliver(stream.token('a'))
  assert.equal(store.getSnapshot().messages[1].activity, null)
})

test('a refused message is an error with the server’s sentence', async () => {
  const { transport, store } = chat()
  const { reading, ended } = await ask({ transport, store }, 'hello', 1)
  reading.fail(new Refused('too_many', 'Slow down.', TRACE))
  await ended
  const { status, error, trace_id } = store.getSnapshot().messages[1]
  assert.deepEqual([status, trace_id], ['error', TRACE])
  assert.deepEqual(error, { code: 'too_many', error: 'Slow down.' })
})

test('a refused message stops the answer it was to replace, which no page shows any more', async () => {
  const { transport, store, answers } = chat()
  const first = await ask({ transport, store }, 'one', 1)
  first.reading.deliver(first.stream.thinking(), first.stream.token('FIRST'))
  const second = await ask({ transport, store }, 'two', 2)
  second.reading.fail(new Refused('unavailable', 'Later.'))
  await second.ended
  assert.deepEqual(transport.cancels.map(({ stream_id }) => stream_id), [first.reading.stream_id])
  assert.deepEqual(answers().map(([status]) => status), ['replaced', 'error'])
})

for (const [what, error] of [
  ['gone at the server', new Refused('gone', 'No longer here.')],
  ['unknown to the server', new Refused('not_found', 'Unknown.')],
  ['lost with its connection', new ConnectionLost('The server cannot be reached.')],
]) {
  test(`an answer that is ${what} in the middle is interrupted, and keeps its text`, async () => {
    const { transport, store, answers } = chat()
    const { reading, stream, ended } = await ask({ transport, store }, 'hello', 1)
    reading.deliver(stream.thinking(), stream.token('half'))
    reading.fail(error)
    await ended
    assert.deepEqual(answers(), [['interrupted', 'half']])
  })
}

test('an AbortError is silent', async () => {
  const { transport, store } = chat()
  const { reading, ended } = await ask({ transport, store }, 'hello', 1)
  reading.fail(new DOMException('aborted', 'AbortError'))
  await ended
  assert.equal(store.getSnapshot().error, null)
  assert.equal(store.getSnapshot().messages[1].error, null)
})

test('a conversation is loaded, and its live answer replayed from the first frame', async () => {
  const { transport, store, answers } = chat()
  const live = new FakeStream('22222222-2222-4222-8222-222222222222', 7)
  const stored = (id, role, status, stream_id, content) => ({ id, role, status, stream_id, content })
  store.load({
    session_id: 's',
    messages: [
      stored('1:u', 'user', 'complete', '1', 'one'),
      stored('1:a', 'assistant', 'superseded', '1', 'FIRST'),
      stored('2:u', 'user', 'complete', live.ids.stream_id, 'two'),
      stored('2:a', 'assistant', 'streaming', live.ids.stream_id, 'par'),
    ],
    active_stream: { stream_id: live.ids.stream_id, epoch: 7, seq: 3 },
  })
  await settle()
  assert.deepEqual(answers(), [
    ['replaced', 'FIRST'],
    ['thinking', ''],
  ])
  const [reading] = transport.readings
  assert.deepEqual([reading.stream_id, reading.after], [live.ids.stream_id, 0])
  reading.deliver(live.thinking(), live.token('par'), live.token('tial'), live.done())
  assert.deepEqual(answers().at(-1), ['complete', 'partial'])
})

test('the words of the history become those of the page', () => {
  const { store, answers } = chat()
  const statuses = ['complete', 'streaming', 'cancelled', 'superseded', 'error', 'interrupted']
  store.load({
    session_id: 's',
    messages: statuses.map((status, index) => ({
      ...{ id: String(index), role: 'assistant', status, stream_id: String(index), content: 'x' },
    })),
    active_stream: null,
  })
  assert.deepEqual(
    answers().map(([status]) => status),
    ['complete', 'interrupted', 'stopped', 'replaced', 'error', 'interrupted'],
  )
})
