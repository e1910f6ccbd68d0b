import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'

import { ChatClient } from '../../static/js/index.js'
import { deferred } from '../../static/js/reading.js'
import { FakeConnection, FakeStream, FakeWindow, fakeFetch, refusal, settle, stored } from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const B = 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb'

const clients = []
afterEach(() => clients.splice(0).forEach((client) => client.close()))

/** A client, and a server that knows these sessions: each has its messages, and maybe a live one. */
function setUp(sessions = {}, options = {}) {
  const transport = new FakeConnection()
  const window = new FakeWindow()
  const fetch = fakeFetch(async (path) => {
    const id = /^\/api\/sessions\/([^/?]+)\/messages$/.exec(path)?.[1]
    if (path.startsWith('/api/sessions?')) return Response.json({ sessions: [], next: null })
    const session = sessions[id]
    if (!session) return refusal(404, 'not_found', 'No such session.')
    await session.held
    const { messages = [], active_stream = null } = session
    return Response.json({ session_id: id, messages, active_stream })
  })
  const client = new ChatClient({ base: 'http://host:1/', fetch, transport, window, ...options })
  clients.push(client)
  const shown = () => client.getSnapshot().messages.map(({ content }) => content)
  const asked = () => fetch.calls.map(({ path }) => path)
  return { client, transport, window, fetch, shown, asked, sessions }
}

/** Sends, and lets the server take it. */
async function ask({ client, transport }, prompt, epoch = 1) {
  const ended = client.send(prompt)
  await settle()
  const reading = transport.readings.at(-1)
  reading.accept()
  return { ended, reading, stream: new FakeStream(reading.stream_id, epoch) }
}

test('the snapshot is one object until something changes, and says how the server is reached', async () => {
  const { client, transport } = setUp()
  const before = client.getSnapshot()
  assert.equal(client.getSnapshot(), before)
  assert.ok(Object.isFrozen(before))
  assert.deepEqual([before.connection, before.retry_at], ['connecting', null])
  let changes = 0
  const unsubscribe = client.subscribe(() => (changes += 1))
  transport.become('reconnecting', 1234)
  assert.deepEqual(
    [client.getSnapshot().connection, client.getSnapshot().retry_at, changes],
    ['reconnecting', 1234, 1],
  )
  assert.equal(client.getSnapshot().messages, before.messages)
  unsubscribe()
  transport.become('websocket')
  assert.equal(changes, 1)
})

test('getSnapshot and subscribe need no client before the dot', () => {
  const { getSnapshot, subscribe } = setUp().client
  subscribe(() => {})()
  assert.deepEqual(getSnapshot().messages, [])
})

test('a conversation that is new is never asked for', async () => {
  const { client, transport, asked } = setUp()
  transport.become('websocket')
  await settle()
  await client.refresh()
  await client.open()
  assert.deepEqual(asked(), [])
  assert.equal(client.getSnapshot().loading, false)
})

test('a conversation that is given is loaded when the server is reached, and then watched', async () => {
  const { client, transport, shown } = setUp(
    { one: { messages: stored(A, 'question', 'complete', 'answer') } },
    { session_id: 'one' },
  )
  assert.deepEqual([client.getSnapshot().loading, shown()], [true, []])
  transport.become('http')
  await until(client, () => !client.getSnapshot().loading)
  assert.deepEqual(shown(), ['question', 'answer'])
  await settle()
  assert.equal(transport.watched, 'one')
})

test('a conversation that the server does not know is empty, and not asked for by itself', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { client, transport, asked, shown, sessions } = setUp({}, { session_id: 'new' })
  client.connect()
  transport.become('http')
  await until(client, () => !client.getSnapshot().loading)
  t.mock.timers.tick(60_000)
  await settle()
  assert.deepEqual(asked(), ['/api/sessions/new/messages'])
  assert.equal(client.getSnapshot().error, null)
  sessions.new = { messages: stored(A, 'theirs', 'complete', 'text') }
  await client.refresh()
  assert.deepEqual(shown(), ['theirs', 'text'])
})

test('one that we then begin is, like any other', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const page = setUp({}, { session_id: 'new' })
  const { client, transport, sessions, shown } = page
  client.connect()
  transport.become('http')
  await until(client, () => !client.getSnapshot().loading)
  const { reading, stream } = await ask(page, 'mine')
  reading.deliver(...stream.answer('text'))
  const mine = stored(reading.stream_id, 'mine', 'complete', 'text')
  sessions.new = { messages: [...mine, ...stored(A, 'theirs', 'complete', 'other')] }
  t.mock.timers.tick(60_000)
  await settle()
  assert.deepEqual(shown(), ['mine', 'text', 'theirs', 'other'])
})

test('every frame is told with what it was, and an answer’s end, however it came', async () => {
  const page = setUp()
  const told = []
  page.client.on('frame', ({ frame, verdict }) => told.push([frame.type, verdict]))
  page.client.on('ended', ({ message }) => told.push([message.status, message.content]))
  const { reading, stream } = await ask(page, 'hello')
  const [thinking, token] = [stream.thinking(), stream.token('a')]
  reading.deliver(thinking, token, token, stream.done('length'))
  assert.deepEqual(told, [
    ['status', 'next'],
    ['token', 'next'],
    ['token', 'duplicate'],
    ['complete', 'a'],
    ['done', 'next'],
  ])
  assert.deepEqual(page.client.dropped, { stale: 0, duplicate: 1, gap: 0, unknown: 0, reply: 0 })
})

test('who is told no more is told nothing', async () => {
  const { client, transport } = setUp()
  const states = []
  const off = client.on('connection', ({ state }) => states.push(state))
  transport.become('websocket')
  transport.become('websocket', null)
  off()
  transport.become('http')
  assert.deepEqual(states, ['websocket'])
})

// Other conversations

test('a conversation that is left goes on at the server, and shows nothing here any more', async () => {
  const page = setUp({ two: { messages: stored(B, 'other', 'complete', 'text') } })
  const { client, transport, shown } = page
  transport.become('websocket')
  const first = client.getSnapshot().session_id
  const { reading, stream } = await ask(page, 'hello')
  reading.deliver(stream.thinking(), stream.token('a'))
  const opened = []
  client.on('session', ({ session_id }) => opened.push(session_id))
  const frames = []
  client.on('frame', ({ frame }) => frames.push(frame))
  await client.open('two')
  reading.deliver(stream.token('LATE'), stream.done())
  transport.announce?.(new FakeStream(A, 9).thinking())
  assert.deepEqual(opened, ['two'])
  assert.deepEqual(frames, [])
  assert.equal(client.getSnapshot().session_id, 'two')
  assert.deepEqual(shown().slice(0, 2), ['other', 'text'])
  assert.equal(reading.left, true)
  assert.equal(reading.request.on_disconnect, 'continue')
  assert.deepEqual(transport.cancels, [])
  assert.deepEqual(transport.unwatched, [first])
  assert.equal(transport.watched, 'two')
})

test('what was just sent reaches the server though its conversation is left at once', async () => {
  const { client, transport } = setUp()
  client.send('do not lose me')
  await client.open()
  await settle()
  assert.equal(transport.readings.length, 1)
  assert.equal(transport.readings[0].left, false)
  transport.readings[0].accept()
  await settle()
  assert.equal(transport.readings[0].left, true)
  assert.deepEqual(client.getSnapshot().messages, [])
})

test('coming back loads the conversation, and its live answer goes on from there', async () => {
  const sessions = { one: {}, two: { messages: stored(B, 'other', 'complete', 'text') } }
  const page = setUp(sessions, { session_id: 'one' })
  const { client, transport, shown } = page
  transport.become('websocket')
  const { reading, stream } = await ask(page, 'hello')
  reading.deliver(stream.thinking(), stream.token('a'))
  await client.open('two')
  stream.token('b') // made while nobody looked
  sessions.one.messages = stored(reading.stream_id, 'hello', 'streaming', 'ab')
  sessions.one.active_stream = { stream_id: reading.stream_id, epoch: 1, seq: 3 }
  await client.open('one')
  await settle()
  assert.deepEqual(shown(), ['hello', 'ab'])
  const again = transport.readings.at(-1)
  assert.deepEqual([again.stream_id, again.after], [reading.stream_id, 3])
  reading.deliver(stream.token('c')) // still on the old connection: nobody listens there
  again.deliver({ ...stream.ids, seq: 4, type: 'token', text: 'c' })
  assert.deepEqual(shown(), ['hello', 'abc'])
})

test('a history that comes when its conversation was left is not shown in the next one', async () => {
  const held = deferred()
  const { client, transport, shown } = setUp({
    slow: { held: held.promise, messages: stored(A, 'slow', 'complete', 'SLOW') },
    quick: { messages: stored(B, 'quick', 'complete', 'text') },
  })
  transport.become('http')
  const slow = client.open('slow')
  await client.open('quick')
  held.resolve()
  await slow
  assert.deepEqual(shown(), ['quick', 'text'])
  assert.equal(transport.watched, 'quick')
})

test('to open the conversation that is shown brings it up to date', async () => {
  const sessions = { one: { messages: [] } }
  const { client, transport, shown } = setUp(sessions, { session_id: 'one' })
  const opened = []
  client.on('session', ({ session_id }) => opened.push(session_id))
  transport.become('http')
  await settle()
  sessions.one.messages = stored(A, 'theirs', 'complete', 'text')
  await client.open('one')
  assert.deepEqual([shown(), opened], [['theirs', 'text'], []])
})

// Waking up

test('whoever comes back to the tab wakes the connection, until the client is closed', async () => {
  const { client, transport, window } = setUp()
  client.connect()
  for (const event of ['focus', 'online', 'pageshow']) window.dispatchEvent(new Event(event))
  window.document.dispatchEvent(new Event('visibilitychange'))
  assert.equal(transport.wakes, 4)
  client.close()
  window.dispatchEvent(new Event('focus'))
  window.document.dispatchEvent(new Event('visibilitychange'))
  assert.equal(transport.wakes, 4)
})

test('to connect again is not to wait for the next try', async () => {
  const { client, transport } = setUp()
  client.connect()
  assert.equal(transport.wakes, 0)
  client.connect()
  assert.equal(transport.wakes, 1)
})

test('a tab that is hidden or frozen does nothing, least of all a stop', async () => {
  const page = setUp()
  const { client, transport, window } = page
  client.connect()
  const { reading } = await ask(page, 'hello')
  window.document.hidden = true
  for (const event of ['freeze', 'visibilitychange']) window.document.dispatchEvent(new Event(event))
  window.dispatchEvent(new Event('pagehide'))
  await settle()
  assert.deepEqual([transport.cancels, reading.left, transport.wakes], [[], false, 0])
})

test('over HTTP a tab that is woken asks what others have said', async () => {
  const sessions = { one: { messages: [] } }
  const { client, transport, window, shown } = setUp(sessions, { session_id: 'one' })
  client.connect()
  transport.become('http')
  await until(client, () => !client.getSnapshot().loading)
  await settle()
  sessions.one.messages = stored(A, 'theirs', 'complete', 'text')
  window.dispatchEvent(new Event('focus'))
  await until(client, () => shown().length > 0)
  assert.deepEqual(shown(), ['theirs', 'text'])
})

test('now and then a tab that is looked at makes sure of the server, and over HTTP of others', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const sessions = { one: { messages: [] } }
  const { client, transport, window, asked } = setUp(sessions, { session_id: 'one' })
  client.connect()
  transport.become('http')
  await settle()
  const before = asked().length
  t.mock.timers.tick(20_000)
  await settle()
  assert.deepEqual([transport.checks, asked().length - before], [1, 1])
  window.document.hidden = true
  t.mock.timers.tick(60_000)
  await settle()
  assert.deepEqual([transport.checks, asked().length - before], [1, 1])
})

test('in Node there is no window, and nothing is missed', async () => {
  const { client, transport } = setUp({}, { window: undefined })
  await client.connect()
  transport.become('http')
  assert.equal(client.getSnapshot().connection, 'http')
})

// The list of conversations

test('an answer that begins or ends brings the list up to date, once somebody has asked for it', async () => {
  const page = setUp()
  const lists = () => page.asked().filter((path) => path.startsWith('/api/sessions?')).length
  const { reading, stream } = await ask(page, 'hello')
  reading.deliver(stream.thinking(), stream.token('a'), stream.done())
  await settle()
  assert.equal(lists(), 0)
  await page.client.sessions.load()
  const second = await ask(page, 'again', 2)
  second.reading.deliver(second.stream.thinking(), second.stream.token('a'))
  await settle()
  assert.equal(lists(), 2)
  second.reading.deliver(second.stream.token('b'), second.stream.done())
  await settle()
  await settle()
  assert.equal(lists(), 3)
})

test('a conversation that is deleted while it is shown makes room for a new one', async () => {
  const { client } = setUp({}, { fetch: fakeFetch(() => new Response(null, { status: 204 })) })
  const before = client.getSnapshot().session_id
  assert.equal(await client.sessions.remove(before), true)
  assert.notEqual(client.getSnapshot().session_id, before)
})

/** Waits until it is so; asked after every change. */
async function until(client, isSo) {
  const { promise, resolve } = deferred()
  const look = () => isSo() && resolve()
  const unsubscribe = client.subscribe(look)
  look()
  await promise
  unsubscribe()
}
