import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ConnectionLost, Refused } from '../../static/js/errors.js'
import { ChatStore } from '../../static/js/store.js'
import { FakeStream, FakeTransport, TRACE, settle, stored } from './fakes.js'

function chat(options) {
  const transport = new FakeTransport()
  const server = { messages: [], active_stream: null, fetches: 0 }
  const fetchSession = async (session_id) => {
    server.fetches += 1
    if (server.down) throw new ConnectionLost('The server cannot be reached.')
    return { session_id, messages: server.messages, active_stream: server.active_stream }
  }
  const store = new ChatStore({
    ...{ transport, fetchSession, session_id: 's', lastFrameTimeout: 20, ...options },
  })
  const answers = () =>
    store
      .getSnapshot()
      .messages.filter(({ role }) => role === 'assistant')
      .map(({ status, content }) => [status, content])
  const shown = () =>
    store.getSnapshot().messages.map(({ role, status, content }) =>
      role === 'user' ? content : [status, content],
    )
  return { transport, store, server, answers, shown }
}

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const B = 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb'
const C = 'cccccccc-cccc-4ccc-8ccc-cccccccccccc'

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
    on_conflict: 'interrupt',
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
  assert.deepEqual(store.dropped, { stale: 3, duplicate: 2, gap: 1, unknown: 0, reply: 0 })
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
  assert.deepEqual(error, { code: 'upstream_error', error: 'Sorry.', retryable: true })
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
  assert.deepEqual(error, { code: 'too_many', error: 'Slow down.', retryable: true })
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

test('a conversation is loaded, and its live answer goes on from where it stands', async () => {
  const { transport, store, shown } = chat()
  const live = new FakeStream(B, 7)
  live.answer('par') // up to here the history has it
  store.load({
    session_id: 's',
    messages: [
      ...stored(A, 'one', 'superseded', 'FIRST'),
      ...stored(B, 'two', 'streaming', 'par'),
    ],
    active_stream: { stream_id: B, epoch: 7, seq: 3 },
  })
  await settle()
  assert.deepEqual(shown(), ['one', ['replaced', 'FIRST'], 'two', ['streaming', 'par']])
  const [reading] = transport.readings
  assert.deepEqual([reading.stream_id, reading.after], [B, 3])
  reading.deliver(live.token('tial'), live.done())
  assert.deepEqual(shown().at(-1), ['complete', 'partial'])
})

test('Stop stops an answer that was going on when the page was loaded', async () => {
  const { transport, store, server, answers } = chat()
  store.load({
    session_id: 's',
    messages: stored(A, 'one', 'streaming', 'half'),
    active_stream: { stream_id: A, epoch: 7, seq: 2 },
  })
  const stopping = store.stop()
  assert.equal(transport.cancels[0].stream_id, A)
  server.messages = stored(A, 'one', 'cancelled', 'half')
  transport.cancels[0].resolve({ cancelled: true })
  await stopping
  assert.deepEqual(answers(), [['stopped', 'half']])
  await settle()
  assert.deepEqual(answers(), [['stopped', 'half']])
})

test('what a silent connection did not bring before Stop is told by the history', async () => {
  const { transport, store, server, answers } = chat()
  const { reading, stream } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('half'))
  server.messages = stored(reading.stream_id, 'hello', 'complete', 'half and the rest')
  const stopping = store.stop()
  transport.cancels[0].resolve({ cancelled: false })
  await stopping
  await settle()
  assert.deepEqual(answers(), [['complete', 'half and the rest']])
})

test('an answer that was lost and is read anew shows its text once, and no error', async () => {
  const { transport, store, answers } = chat()
  const { reading, stream, ended } = await ask({ transport, store }, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('half'))
  reading.fail(new ConnectionLost('The server cannot be reached.'))
  await ended
  const resuming = store.resume(reading.stream_id)
  await settle()
  assert.deepEqual(answers(), [['interrupted', 'half']]) // until there is something better
  const again = transport.readings.at(-1)
  const anew = new FakeStream(reading.stream_id, 1)
  again.deliver(anew.thinking(), anew.token('half'), anew.token(' and whole'), anew.done())
  again.end()
  await resuming
  assert.deepEqual(answers(), [['complete', 'half and whole']])
  assert.equal(store.getSnapshot().messages[1].error, null)
})

test('the words of the history become those of the page', () => {
  const { store, answers } = chat()
  const statuses = ['complete', 'cancelled', 'superseded', 'error', 'interrupted']
  store.load({
    session_id: 's',
    messages: statuses.flatMap((status, index) => stored(String(index), 'q', status, 'x')),
    active_stream: null,
  })
  assert.deepEqual(
    answers().map(([status]) => status),
    ['complete', 'stopped', 'replaced', 'error', 'interrupted'],
  )
})

test('a message that waited in the queue when the page was loaded is read from its beginning', async () => {
  const { transport, store, answers } = chat()
  store.load({
    session_id: 's',
    messages: [...stored(A, 'one', 'streaming', 'fir'), ...stored(B, 'two', 'streaming', '')],
    active_stream: { stream_id: A, epoch: 7, seq: 2 },
  })
  await settle()
  const [first, second] = transport.readings
  assert.deepEqual([second.stream_id, second.after], [B, 0])
  const waiting = new FakeStream(B, 6) // queued behind one before A: older than what is live now
  second.deliver(waiting.thinking(), waiting.queued(1))
  assert.equal(store.getSnapshot().messages[3].position, 1)
  const live = new FakeStream(A, 7)
  live.answer()
  first.deliver(live.token('st'), live.done())
  waiting.call(8)
  second.deliver(waiting.token('second'), waiting.done())
  assert.deepEqual(answers(), [
    ['complete', 'first'],
    ['complete', 'second'],
  ])
})

// The queue

/** Asks once, is being answered, and asks again behind that. */
async function askTwice(page) {
  const first = await ask(page, 'one', 5)
  first.reading.deliver(first.stream.thinking(), first.stream.token('fir'))
  const ended = page.store.send('two', { on_conflict: 'enqueue' })
  await settle()
  const reading = page.transport.readings[1]
  reading.accept()
  const stream = new FakeStream(reading.stream_id, 5) // the epoch of the one before it
  reading.deliver(stream.thinking(), stream.queued(1))
  return { first, second: { ended, reading, stream } }
}

test('a message may wait for its turn: neither answer becomes stale', async () => {
  const page = chat()
  const { first, second } = await askTwice(page)
  assert.equal(second.reading.request.on_conflict, 'enqueue')
  assert.deepEqual(page.answers(), [
    ['streaming', 'fir'],
    ['thinking', ''],
  ])
  assert.equal(page.store.getSnapshot().messages[3].position, 1)
  // Its turn comes; on another connection the end of the first is still on its way.
  second.stream.call(6)
  second.reading.deliver(second.stream.token('second'))
  first.reading.deliver(first.stream.token('st'), first.stream.done())
  second.reading.deliver(second.stream.done())
  assert.deepEqual(page.answers(), [
    ['complete', 'first'],
    ['complete', 'second'],
  ])
  assert.equal(page.store.getSnapshot().busy, false)
})

test('it waits no longer when the answer before it has ended', async () => {
  const page = chat()
  const { first } = await askTwice(page)
  first.reading.deliver(first.stream.done())
  assert.equal(page.store.getSnapshot().messages[3].position, null)
  assert.equal(page.store.getSnapshot().busy, true)
})

test('Stop stops the one that speaks, and the one that waits by its name', async () => {
  const page = chat()
  const { first, second } = await askTwice(page)
  const third = page.store.send('three', { on_conflict: 'enqueue' })
  await settle()
  const reading = page.transport.readings[2]
  const waiting = new FakeStream(reading.stream_id, 5)
  reading.deliver(waiting.thinking(), waiting.queued(2))
  page.store.stop()
  page.store.stop(reading.stream_id)
  assert.deepEqual(
    page.transport.cancels.map(({ stream_id }) => stream_id),
    [first.reading.stream_id, reading.stream_id],
  )
  reading.deliver(waiting.done('cancelled'))
  reading.end()
  await third
  second.reading.deliver(second.stream.queued(1))
  // What was withdrawn while it waited leaves the conversation; the server does not keep it either.
  assert.deepEqual(page.answers().map(([status]) => status), ['streaming', 'thinking'])
})

test('a message that interrupts replaces the ones that wait, too', async () => {
  const page = chat()
  const { first, second } = await askTwice(page)
  const third = await ask(page, 'three', 9)
  third.reading.deliver(third.stream.thinking(), third.stream.token('third'))
  first.reading.deliver(first.stream.token('LATE'))
  second.reading.deliver(second.stream.done('superseded'))
  third.reading.deliver(third.stream.done())
  assert.deepEqual(page.answers(), [
    ['replaced', 'fir'],
    ['replaced', ''],
    ['complete', 'third'],
  ])
})

test('a message queued while the one before it has not yet spoken makes nothing stale', async () => {
  const page = chat()
  const { first, second } = await askTwice(page)
  first.reading.deliver(first.stream.done())
  page.store.send('three', { on_conflict: 'enqueue' })
  await settle()
  const reading = page.transport.readings[2]
  const third = new FakeStream(reading.stream_id, 6) // the second has claimed 6, and is silent yet
  reading.deliver(third.thinking(), third.queued(1))
  second.stream.call(6)
  second.reading.deliver(second.stream.token('second'), second.stream.done())
  third.call(7)
  reading.deliver(third.token('third'), third.done())
  assert.deepEqual(page.answers().slice(1), [
    ['complete', 'second'],
    ['complete', 'third'],
  ])
})

// Two tabs

/** Another tab asks: its stream announces itself here. */
async function overhear({ transport, store, server }, stream_id, epoch) {
  store.watch()
  server.messages = [...server.messages, ...stored(stream_id, 'theirs', 'streaming', '')]
  const stream = new FakeStream(stream_id, epoch)
  const thinking = stream.thinking()
  transport.announce(thinking)
  const before = store.getSnapshot().messages
  await settle()
  const reading = transport.readings.at(-1)
  reading.deliver(thinking)
  return { stream, reading, before }
}

test('what another tab asks is shown here: the answer at once, the question when it is fetched', async () => {
  const page = chat()
  const { stream, reading, before } = await overhear(page, A, 5)
  assert.deepEqual(before.map(({ role, status }) => [role, status]), [['assistant', 'thinking']])
  assert.deepEqual([reading.stream_id, reading.after], [A, 0])
  reading.deliver(stream.token('live'))
  assert.deepEqual(page.shown(), ['theirs', ['streaming', 'live']])
  reading.deliver(stream.done('cancelled')) // stopped there
  assert.deepEqual(page.shown(), ['theirs', ['stopped', 'live']])
  assert.equal(page.server.fetches, 1)
})

test('an announcement of what is known already, or over, changes nothing', async () => {
  const page = chat()
  const { stream, reading } = await overhear(page, B, 5)
  const first = new FakeStream(B, 5).thinking()
  page.transport.announce(first)
  reading.deliver(stream.token('x'), stream.done())
  page.transport.announce(first)
  page.transport.announce(new FakeStream(A, 4).thinking()) // of before it
  await settle()
  assert.equal(page.transport.readings.length, 1)
  assert.deepEqual(page.shown(), ['theirs', ['complete', 'x']])
})

test('frames that come after the history has told of their end change nothing', async () => {
  const page = chat()
  page.server.messages = stored(A, 'theirs', 'complete', 'all of it')
  await page.store.refresh()
  page.store.watch()
  const before = page.store.getSnapshot()
  page.transport.announce(new FakeStream(A, 5).thinking(), false)
  assert.equal(page.store.getSnapshot(), before)
  await settle()
  assert.deepEqual([page.transport.readings, page.server.fetches], [[], 1])
})

test('a message of another tab replaces the answer here, whose ending may come late', async () => {
  const page = chat()
  const mine = await ask(page, 'mine', 5)
  mine.reading.deliver(mine.stream.thinking(), mine.stream.token('half'))
  const { stream, reading } = await overhear(page, A, 6)
  reading.deliver(stream.token('theirs'))
  mine.reading.deliver(mine.stream.done('superseded'))
  reading.deliver(stream.token(', too'), stream.done())
  assert.deepEqual(page.answers(), [
    ['replaced', 'half'],
    ['complete', 'theirs, too'],
  ])
})

test('an answer that was complete before it was replaced says so, however late', async () => {
  const page = chat()
  const mine = await ask(page, 'mine', 5)
  mine.reading.deliver(mine.stream.thinking(), mine.stream.token('whole'))
  const { stream, reading } = await overhear(page, A, 6)
  reading.deliver(stream.token('theirs'))
  mine.reading.deliver(mine.stream.done('stop'))
  assert.deepEqual(page.answers()[0], ['complete', 'whole'])
})

test('words of a replaced answer that come after those of the newer one are not shown', async () => {
  const page = chat()
  const mine = await ask(page, 'mine', 5)
  mine.reading.deliver(mine.stream.thinking(), mine.stream.token('half'))
  const { stream, reading } = await overhear(page, A, 6)
  reading.deliver(stream.token('theirs'))
  mine.reading.deliver(mine.stream.token('LATE'), mine.stream.done('superseded'))
  assert.deepEqual(page.answers()[0], ['replaced', 'half'])
})

/** The answer here is replaced by another tab's, whose words come before its last ones. */
async function outdone(page) {
  const mine = await ask(page, 'mine', 5)
  mine.reading.deliver(mine.stream.thinking(), mine.stream.token('half'))
  const { stream, reading } = await overhear(page, A, 6)
  reading.deliver(stream.token('theirs'))
  return { mine, tell: (...told) => (page.server.messages = [...told, ...page.server.messages]) }
}

test('those words, and how it ended, are told by the history', async () => {
  const page = chat()
  const { mine, tell } = await outdone(page)
  tell(...stored(mine.reading.stream_id, 'mine', 'complete', 'half and half'))
  mine.reading.deliver(mine.stream.token(' and half'), mine.stream.done('stop'))
  assert.deepEqual(page.answers()[0], ['replaced', 'half'])
  await settle()
  assert.deepEqual(page.shown(), [
    ...['mine', ['complete', 'half and half']],
    ...['theirs', ['streaming', 'theirs']],
  ])
})

test('it is replaced while the history cannot be had, or does not say that it has ended', async () => {
  const page = chat()
  const { mine, tell } = await outdone(page)
  const { stream_id } = mine.reading
  tell(...stored(stream_id, 'mine', 'streaming', 'ha'))
  page.server.down = true
  mine.reading.deliver(mine.stream.token('LATE'))
  await settle()
  assert.deepEqual(page.answers()[0], ['replaced', 'half'])
  page.server.down = false
  await page.store.refresh()
  assert.deepEqual(page.answers()[0], ['replaced', 'half'])
  page.server.messages.splice(0, 2, ...stored(stream_id, 'mine', 'superseded', 'half and half'))
  await page.store.refresh()
  assert.deepEqual(page.answers()[0], ['replaced', 'half and half'])
})

test('one that was rolled back goes, though its last frame was not heard', async () => {
  const page = chat()
  const { mine } = await outdone(page)
  mine.reading.deliver(mine.stream.token('LATE'))
  await settle()
  assert.deepEqual(page.shown(), ['theirs', ['streaming', 'theirs']])
})

test('a history that says it is still being made is not asked for ever', async () => {
  const page = chat()
  const { mine, tell } = await outdone(page)
  const { fetches } = page.server
  const { stream_id } = mine.reading
  tell(...stored(stream_id, 'mine', 'streaming', 'half'))
  page.server.active_stream = { stream_id, epoch: 5, seq: 2 }
  const late = mine.stream.token('LATE')
  for (let turns = 0; turns < 5; turns++) {
    page.transport.readings.findLast((one) => one.stream_id === stream_id).deliver(late)
    await settle()
  }
  assert.deepEqual([page.server.fetches - fetches, page.answers()[0]], [1, ['replaced', 'half']])
})

test('two tabs ask at once: the one that came first to the server ends as replaced', async () => {
  const page = chat()
  const ended = page.store.send('mine')
  await settle()
  const mine = page.transport.readings[0]
  mine.accept()
  const { stream, reading } = await overhear(page, A, 6)
  reading.deliver(stream.token('theirs'))
  const mineToo = new FakeStream(mine.stream_id, 5) // it never spoke
  mine.deliver(mineToo.thinking(), mineToo.done('superseded'))
  mine.end()
  await ended
  reading.deliver(stream.done())
  assert.deepEqual(page.answers(), [
    ['replaced', ''],
    ['complete', 'theirs'],
  ])
})

test('the server’s order of the messages is the page’s', async () => {
  const page = chat()
  page.store.send('mine')
  await settle()
  const mine = page.transport.readings[0].stream_id
  page.server.messages = [
    ...stored(A, 'first', 'complete', '1'),
    ...stored(mine, 'mine', 'streaming', ''),
    ...stored(C, 'third', 'complete', '3'),
  ]
  await page.store.refresh()
  assert.deepEqual(page.shown(), [
    ...['first', ['complete', '1'], 'mine', ['thinking', '']],
    ...['third', ['complete', '3']],
  ])
})

test('what the server does not have yet keeps its place', async () => {
  const page = chat()
  page.server.messages = stored(A, 'first', 'complete', '1')
  await page.store.refresh()
  page.store.send('refused')
  await settle()
  page.transport.readings[0].fail(new Refused('too_many', 'Later.'))
  await settle()
  page.store.send('on its way')
  page.server.messages = [...page.server.messages, ...stored(B, 'theirs', 'complete', '2')]
  await page.store.refresh()
  assert.deepEqual(
    page.shown().filter((_, index) => index % 2 === 0),
    ['first', 'theirs', 'refused', 'on its way'],
  )
})

// What was lost sight of

test('after a stream error the history says how the answer ended, and how far it came', async () => {
  const page = chat()
  const { reading, stream, ended } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('half'))
  page.server.messages = stored(reading.stream_id, 'hello', 'complete', 'half, and the rest')
  reading.fail(new Refused('gone', 'No longer here.'))
  await ended
  await settle()
  assert.deepEqual(page.answers(), [['complete', 'half, and the rest']])
})

test('of an interrupted answer what was shown stays, where the server has less of it', async () => {
  const page = chat()
  const { reading, stream, ended } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('all of this'))
  page.server.messages = stored(reading.stream_id, 'hello', 'interrupted', 'all')
  reading.fail(new Refused('gone', 'No longer here.'))
  await ended
  await settle()
  assert.deepEqual(page.answers(), [['interrupted', 'all of this']])
  assert.equal(page.store.getSnapshot().messages[1].error, null)
})

test('an answer that was given up, but goes on at the server, is taken up again', async () => {
  const page = chat()
  const { reading, stream, ended } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('one '))
  page.server.down = true
  reading.fail(new ConnectionLost('The server cannot be reached.'))
  await ended
  assert.deepEqual(page.answers(), [['interrupted', 'one ']])
  stream.token('two ')
  page.server.down = false
  page.server.messages = stored(reading.stream_id, 'hello', 'streaming', 'one two ')
  page.server.active_stream = { stream_id: reading.stream_id, epoch: 1, seq: 3 }
  await page.store.refresh()
  await settle()
  const again = page.transport.readings[1]
  assert.equal(again.after, 3)
  again.deliver(stream.token('three'), stream.done())
  assert.deepEqual(page.answers(), [['complete', 'one two three']])
})

test('a history and a stream that contradict each other are not asked for ever', async () => {
  const page = chat()
  const { reading, stream, ended } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('half'))
  page.server.messages = stored(reading.stream_id, 'hello', 'streaming', 'half')
  page.server.active_stream = { stream_id: reading.stream_id, epoch: 1, seq: 2 }
  reading.fail(new Refused('gone', 'No longer here.'))
  await ended
  for (let turns = 0; turns < 5; turns++) {
    await settle()
    page.transport.readings.at(-1).fail(new Refused('gone', 'No longer here.'))
  }
  assert.deepEqual([page.server.fetches, page.transport.readings.length], [1, 2])
  assert.deepEqual(page.answers(), [['interrupted', 'half']])
})

test('an answer that ended by itself is left as it is', async () => {
  const page = chat()
  const { reading, stream } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('said'), stream.done())
  page.server.messages = stored(reading.stream_id, 'hello', 'streaming', 'sa')
  await page.store.refresh()
  assert.deepEqual(page.answers(), [['complete', 'said']])
})

test('refreshes at once are one, and one more for what may have changed meanwhile', async () => {
  const { store, server } = chat()
  await Promise.all([store.refresh(), store.refresh(), store.refresh()])
  assert.equal(server.fetches, 2)
})

for (const ending of ['done', 'error']) {
  test(`an answer that could not be saved says so, in its ${ending} frame`, async () => {
    const page = chat()
    const { reading, stream } = await ask(page, 'hello', 1)
    reading.deliver(stream.thinking(), stream.token('a'))
    assert.equal(page.store.getSnapshot().messages[1].saved, true)
    reading.deliver({ ...stream[ending](), saved: false })
    assert.equal(page.store.getSnapshot().messages[1].saved, false)
  })
}

// In place of others

/** A conversation of two finished turns, which the server has kept. */
async function withTwoTurns(page) {
  page.server.messages = [
    ...stored(A, 'one', 'complete', 'first'),
    ...stored(B, 'two', 'complete', 'second'),
  ]
  await page.store.refresh()
  return page
}

test('to ask again takes the place of the turn and of what came after it, at once', async () => {
  const page = await withTwoTurns(chat())
  page.store.regenerate(A)
  assert.deepEqual(page.shown(), ['one', ['thinking', '']])
  await settle()
  const [{ request }] = page.transport.readings
  assert.deepEqual([request.prompt, request.replaces, request.on_conflict], ['one', A, 'interrupt'])
})

test('an edited question takes the place of its turn', async () => {
  const page = await withTwoTurns(chat())
  page.store.edit(B, 'better')
  await settle()
  assert.deepEqual(page.shown(), ['one', ['complete', 'first'], 'better', ['thinking', '']])
  const [reading] = page.transport.readings
  const stream = new FakeStream(reading.stream_id, 5)
  reading.deliver({ ...stream.thinking(), replaces: B }, stream.token('new'), stream.done())
  assert.deepEqual(page.shown(), ['one', ['complete', 'first'], 'better', ['complete', 'new']])
})

test('what was replaced does not come back with a history that was asked for before', async () => {
  const page = await withTwoTurns(chat())
  page.store.regenerate(B)
  await page.store.refresh() // the server has not taken it yet
  assert.deepEqual(page.shown(), ['one', ['complete', 'first'], 'two', ['thinking', '']])
  await settle()
  const [reading] = page.transport.readings
  const stream = new FakeStream(reading.stream_id, 5)
  reading.deliver(stream.thinking(), stream.token('again'))
  await page.store.refresh() // an answer that was long on its way
  assert.deepEqual(page.shown(), ['one', ['complete', 'first'], 'two', ['streaming', 'again']])
})

test('when the server refuses, what was to be replaced comes back, and the error is shown', async () => {
  const page = await withTwoTurns(chat())
  const ended = page.store.edit(A, 'better')
  await settle()
  page.transport.readings[0].fail(new Refused('too_many', 'Slow down.'))
  await ended
  assert.deepEqual(page.shown(), [
    ...['one', ['complete', 'first'], 'two', ['complete', 'second']],
    ...['better', ['error', '']],
  ])
  assert.equal(page.store.getSnapshot().messages.at(-1).error.error, 'Slow down.')
  // Tried again, it takes the same place.
  page.store.retry(page.store.getSnapshot().messages.at(-1).stream_id)
  await settle()
  assert.deepEqual(page.shown(), ['better', ['thinking', '']])
  assert.equal(page.transport.readings[1].request.replaces, A)
})

test('a replacement that is stopped before its first frame: the server says what it did', async () => {
  for (const taken of [true, false]) {
    const page = await withTwoTurns(chat())
    const ended = page.store.regenerate(B)
    await settle()
    const [reading] = page.transport.readings
    reading.accept()
    const stopping = page.store.stop()
    page.transport.cancels[0].reject(new Refused('not_found', 'Unknown.'))
    if (taken) {
      page.server.messages = [
        ...stored(A, 'one', 'complete', 'first'),
        ...stored(reading.stream_id, 'two', 'cancelled', ''),
      ]
    }
    await Promise.all([stopping, ended])
    await settle()
    assert.deepEqual(page.shown(), [
      ...['one', ['complete', 'first']],
      ...(taken ? [] : ['two', ['complete', 'second']]),
      ...['two', ['stopped', '']],
    ])
  }
})

test('a stream of another tab drops the turns that it takes the place of', async () => {
  const page = await withTwoTurns(chat())
  page.store.watch()
  page.store.send('on its way') // the server does not have it yet
  page.server.messages = stored(C, 'theirs', 'streaming', '')
  const stream = new FakeStream(C, 7)
  const thinking = { ...stream.thinking(), replaces: A }
  page.transport.announce(thinking)
  assert.deepEqual(page.shown(), ['on its way', ['thinking', ''], ['thinking', '']])
  await settle()
  const reading = page.transport.readings.find(({ stream_id }) => stream_id === C)
  reading.deliver(thinking, stream.token('live'))
  assert.deepEqual(page.shown(), ['on its way', ['thinking', ''], 'theirs', ['streaming', 'live']])
})

test('an answer that another tab replaces while it is being made goes, and stays away', async () => {
  const page = chat()
  const mine = await ask(page, 'mine', 5)
  mine.reading.deliver(mine.stream.thinking(), mine.stream.token('half'))
  page.store.watch()
  page.server.messages = stored(C, 'theirs', 'streaming', '')
  page.transport.announce({ ...new FakeStream(C, 6).thinking(), replaces: mine.reading.stream_id })
  mine.reading.deliver(mine.stream.token('LATE'), mine.stream.done('superseded'))
  await settle()
  assert.deepEqual(page.shown(), ['theirs', ['thinking', '']])
  assert.equal(mine.reading.left, true)
})

test('finished turns that the server no longer has are dropped, what it does not have yet stays', async () => {
  const page = await withTwoTurns(chat())
  const mine = await ask(page, 'three', 5)
  mine.reading.deliver(...mine.stream.answer('third'))
  const failed = await ask(page, 'four', 6)
  failed.reading.fail(new Refused('too_many', 'Later.'))
  await failed.ended
  page.server.messages = [...stored(A, 'one', 'complete', 'first'), ...stored(C, 'five', 'complete', '5')]
  await page.store.refresh()
  assert.deepEqual(page.shown(), [
    ...['one', ['complete', 'first'], 'five', ['complete', '5']],
    ...['four', ['error', '']],
  ])
})

test('an answer that ends while the history is on its way is not dropped', async () => {
  let answerFetch
  const page = chat({ fetchSession: () => new Promise((resolve) => (answerFetch = resolve)) })
  const { reading, stream } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.token('a'))
  const refreshing = page.store.refresh()
  reading.deliver(stream.done())
  answerFetch({ session_id: 's', messages: [], active_stream: null })
  await refreshing
  assert.deepEqual(page.shown(), ['hello', ['complete', 'a']])
})

test('a conversation of which the server knows nothing (any more) stays as it is', async () => {
  const page = chat({ fetchSession: async () => Promise.reject(new Refused('not_found', 'Unknown.')) })
  const { reading, stream } = await ask(page, 'hello', 1)
  reading.deliver(...stream.answer('a'))
  await assert.rejects(page.store.refresh(), { name: 'Refused' })
  assert.deepEqual(page.shown(), ['hello', ['complete', 'a']])
})

// Trying again

test('a turn that the server refused is sent again in its place, under a new name', async () => {
  const page = chat()
  const { reading, ended } = await ask(page, 'hello', 1)
  reading.fail(new Refused('too_many', 'Slow down.'))
  await ended
  page.store.retry(reading.stream_id)
  await settle()
  const again = page.transport.readings[1]
  assert.deepEqual(page.shown(), ['hello', ['thinking', '']])
  assert.notEqual(again.stream_id, reading.stream_id)
  assert.equal(again.request.replaces, undefined)
})

test('a turn that failed at the server is asked anew in its place', async () => {
  const page = chat()
  const { reading, stream } = await ask(page, 'hello', 1)
  reading.deliver(stream.thinking(), stream.error())
  page.store.retry(reading.stream_id)
  await settle()
  assert.equal(page.transport.readings[1].request.replaces, reading.stream_id)
})

test('a turn that may have reached the server keeps its name: it is not answered twice', async () => {
  const page = chat()
  const { reading, ended } = await ask(page, 'hello', 1)
  page.server.down = true
  reading.fail(new ConnectionLost('The server cannot be reached.'))
  await ended
  assert.deepEqual(page.store.getSnapshot().messages[1].error, {
    ...{ code: 'connection_lost', error: 'The server cannot be reached.', retryable: true },
  })
  page.store.retry(reading.stream_id)
  await settle()
  const again = page.transport.readings[1]
  assert.equal(again.stream_id, reading.stream_id)
  again.deliver(...new FakeStream(reading.stream_id, 1).answer('once'))
  assert.deepEqual(page.shown(), ['hello', ['complete', 'once']])
})

test('to ask again what is not known here does nothing', async () => {
  const page = chat()
  await Promise.all([page.store.regenerate(A), page.store.edit(A, 'x'), page.store.retry(A)])
  assert.deepEqual(page.transport.readings, [])
})

// What an answer tells of itself

test('an answer knows when it was asked, began, and ended, its pieces, and its usage', async () => {
  let time = 1000
  const page = chat({ now: () => time })
  const { reading, stream } = await ask(page, 'hello', 1)
  time = 1100
  reading.deliver(stream.thinking())
  time = 1200
  reading.deliver(stream.token('a'))
  time = 1300
  const usage = { output_tokens: 2 }
  reading.deliver(stream.token('b'), { ...stream.done(), usage })
  const [question, answer] = page.store.getSnapshot().messages
  assert.deepEqual([question.created_at, question.started_at, question.tokens], [1000, null, 0])
  const { created_at, started_at, ended_at, tokens } = answer
  assert.deepEqual([created_at, started_at, ended_at, tokens], [1000, 1200, 1300, 2])
  assert.deepEqual(answer.usage, usage)
})

test('what the agent does has a beginning, and an end when something else comes', async () => {
  let time = 0
  const page = chat({ now: () => time })
  const { reading, stream } = await ask(page, 'hello', 1)
  const tool = (name, detail) => stream.frame({ type: 'status', status: 'tool', name, detail })
  const activities = () =>
    page.store
      .getSnapshot()
      .messages[1].activities.map((one) => [one.name, one.detail, one.started_at, one.ended_at])
  reading.deliver(stream.thinking())
  assert.deepEqual(activities(), [])
  time = 10
  reading.deliver(tool('search', 'cats'))
  assert.deepEqual(activities(), [['search', 'cats', 10, null]])
  time = 20
  reading.deliver(tool('clock', undefined))
  assert.equal(page.store.getSnapshot().messages[1].activity, 'clock')
  time = 30
  reading.deliver(stream.token('a'))
  time = 40
  reading.deliver(stream.token('b'), stream.done())
  assert.deepEqual(activities(), [
    ['search', 'cats', 10, 20],
    ['clock', null, 20, 30],
  ])
  assert.ok(page.store.getSnapshot().messages[1].activities.every(Object.isFrozen))
})

test('of what is replayed nobody knows when it happened', async () => {
  const page = chat({ now: () => 99 })
  page.store.watch()
  page.server.messages = stored(A, 'theirs', 'streaming', '')
  const stream = new FakeStream(A, 5)
  const thinking = stream.thinking()
  page.transport.announce(thinking, false) // it has been going on for a while
  await settle()
  const tool = stream.frame({ type: 'status', status: 'tool', name: 'search' })
  page.transport.readings[0].deliver(thinking, tool, stream.token('a'), stream.done())
  const { activities, started_at, ended_at, tokens } = page.store.getSnapshot().messages[1]
  assert.deepEqual([activities[0].started_at, activities[0].ended_at], [null, null])
  assert.deepEqual([started_at, ended_at, tokens], [null, null, 1])
})

test('a message out of the history has the server’s times, trace and error', () => {
  const { store } = chat()
  const [question, answer] = stored(A, 'hello', 'error', 'half')
  const error = { code: 'upstream_error', error: 'Sorry.', retryable: true }
  const ended_at = '2026-01-02T03:04:06.500+00:00'
  const messages = [question, { ...answer, trace_id: TRACE, error, ended_at }]
  store.load({ session_id: 's', messages, active_stream: null })
  const [, shown] = store.getSnapshot().messages
  const asked = Date.UTC(2026, 0, 2, 3, 4, 5)
  assert.deepEqual([shown.created_at, shown.ended_at, shown.started_at], [asked, asked + 1500, null])
  assert.deepEqual([shown.trace_id, shown.error, shown.tokens], [TRACE, error, 0])
})

test('a piece of an answer does not walk over all the messages', async () => {
  const page = chat()
  const count = 300
  const id = (number) => `${String(number).padStart(8, '0')}-0000-4000-8000-000000000000`
  page.server.messages = Array.from({ length: count }, (_, number) =>
    stored(id(number), 'q', 'complete', 'a'),
  ).flat()
  await page.store.refresh()
  const { reading, stream } = await ask(page, 'hello', 1)
  const before = page.store.getSnapshot()
  reading.deliver(stream.thinking(), ...Array.from({ length: 50 }, () => stream.token('x')))
  const after = page.store.getSnapshot()
  assert.equal(after.messages.length, 2 * count + 2)
  assert.ok(after.messages.slice(0, -1).every((message, index) => message === before.messages[index]))
})

test('an answer that was replaced by a stream nobody told us of brings the history', async () => {
  const page = chat()
  const { reading, stream } = await ask(page, 'hello', 1)
  page.server.messages = [
    ...stored(reading.stream_id, 'hello', 'superseded', 'a'),
    ...stored(B, 'theirs', 'streaming', ''),
  ]
  reading.deliver(stream.thinking(), stream.token('a'))
  reading.deliver({ ...stream.done('superseded'), superseded_by: B })
  await settle()
  assert.deepEqual(page.shown(), ['hello', ['replaced', 'a'], 'theirs', ['thinking', '']])
})

test('a stream of somebody else can be read by its name', async () => {
  const page = chat()
  const ended = page.store.resume(A, 0)
  await settle()
  const [reading] = page.transport.readings
  reading.deliver(...new FakeStream(A, 1).answer('x'))
  reading.end()
  await ended
  await page.store.resume(A, 0) // it is over
  assert.deepEqual(page.answers(), [['complete', 'x']])
  assert.equal(page.transport.readings.length, 1)
})

/** A server that keeps so many turns, the epochs of which are 10, 20, … */
function paged(count, size) {
  const turns = Array.from({ length: count }, (_, index) => index + 1)
  const calls = []
  const fetchSession = async (session_id, { before = Infinity } = {}) => {
    calls.push(before)
    await settle()
    if (paged.down) throw new ConnectionLost('The server cannot be reached.')
    const under = turns.filter((number) => number * 10 < before)
    const page = under.slice(-size)
    const messages = page.flatMap((number) => {
      const turn = stored(`turn-${number}`, `q${number}`, 'complete', 'a')
      return turn.map((one) => ({ ...one, epoch: number * 10 }))
    })
    const next = page.length < under.length ? page[0] * 10 : null
    return { session_id, messages, active_stream: null, next }
  }
  return { turns, calls, fetchSession }
}

const questions = (store) =>
  store
    .getSnapshot()
    .messages.filter(({ role }) => role === 'user')
    .map(({ content }) => Number(content.slice(1)))

test('of a long conversation the newest page comes first, and older ones on demand', async () => {
  const server = paged(5, 2)
  const { store } = chat({ fetchSession: server.fetchSession })
  await store.refresh()
  assert.deepEqual(questions(store), [4, 5])
  assert.equal(store.getSnapshot().hasOlder, true)
  const loading = store.loadOlder()
  assert.equal(store.getSnapshot().loadingOlder, true)
  await Promise.all([loading, store.loadOlder()])
  assert.deepEqual(questions(store), [2, 3, 4, 5])
  assert.equal(store.getSnapshot().loadingOlder, false)
  await store.loadOlder()
  await store.loadOlder()
  assert.deepEqual(questions(store), [1, 2, 3, 4, 5])
  assert.equal(store.getSnapshot().hasOlder, false)
  assert.deepEqual(server.calls, [Infinity, 40, 20])
})

test('a refresh keeps the older pages, and drops what has left the newest one', async () => {
  const server = paged(6, 2)
  const { store } = chat({ fetchSession: server.fetchSession })
  await store.refresh()
  await store.loadOlder()
  assert.deepEqual(questions(store), [3, 4, 5, 6])
  server.turns.push(7)
  await store.refresh()
  assert.deepEqual(questions(store), [3, 4, 5, 6, 7])
  server.turns.splice(4, 3, 8) // another tab has asked 5 again
  await store.refresh()
  assert.deepEqual(questions(store), [3, 4, 8])
  await store.loadOlder()
  assert.deepEqual(questions(store), [1, 2, 3, 4, 8])
})

test('after a gap only the newest page is shown, and the rest can be loaded again', async () => {
  const server = paged(4, 2)
  const { store } = chat({ fetchSession: server.fetchSession })
  await store.refresh()
  await store.loadOlder()
  assert.deepEqual(questions(store), [1, 2, 3, 4])
  server.turns.push(5, 6, 7, 8)
  await store.refresh()
  assert.deepEqual(questions(store), [7, 8])
  while (store.getSnapshot().hasOlder) await store.loadOlder()
  assert.deepEqual(questions(store), [1, 2, 3, 4, 5, 6, 7, 8])
})

test('what was asked here stays when the newest page no longer reaches it', async () => {
  const { transport, store } = chat()
  for (const number of [1, 2, 3]) {
    const { ended, reading, stream } = await ask({ transport, store }, `q${number}`, number * 10)
    reading.deliver(...stream.answer(`a${number}`))
    reading.end()
    await ended
  }
  const [, second, third] = store.getSnapshot().messages.filter(({ role }) => role === 'user')
  const page = [second, third].flatMap(({ stream_id, content }, index) =>
    stored(stream_id, content, 'complete', 'a').map((one) => ({ ...one, epoch: 20 + index * 10 })),
  )
  store.load({ session_id: 's', messages: page, active_stream: null, next: 20 })
  assert.deepEqual(questions(store), [1, 2, 3])
})

test('older messages that cannot be had can be asked for again', async () => {
  const server = paged(4, 2)
  const { store } = chat({ fetchSession: server.fetchSession })
  await store.refresh()
  paged.down = true
  await assert.rejects(store.loadOlder())
  assert.equal(store.getSnapshot().loadingOlder, false)
  paged.down = false
  await store.loadOlder()
  assert.deepEqual(questions(store), [1, 2, 3, 4])
})
