/** What code of the page's throws is reported, and everything goes on. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'

import { call, callAll } from '../../static/js/callbacks.js'
import { ChatClient } from '../../static/js/client.js'
import { SessionList } from '../../static/js/sessions.js'
import { ChatStore } from '../../static/js/store.js'
import { FallbackTransport } from '../../static/js/transport.js'
import { HttpTransport } from '../../static/js/transport-http.js'
import { WebSocketTransport } from '../../static/js/transport-ws.js'
import {
  FakeConnection,
  FakeStream,
  FakeTransport,
  blockedWebSocket,
  fakeFetch,
  fakeWebSocket,
  settle,
  toLines,
} from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const request = { prompt: 'hi', session_id: 's', stream_id: A }
const BUG = new Error('a bug in the page')

const throwing = () => {
  throw BUG
}

let reported = []
beforeEach(() => {
  reported = []
  globalThis.reportError = (error) => reported.push(error)
})
afterEach(() => {
  delete globalThis.reportError
})

const empty = () => Response.json({ sessions: [], next: null })

test('an error is reported once, and the other listeners are called', () => {
  const heard = []
  callAll([throwing, (one) => heard.push(one)], 1)
  assert.deepEqual([heard, reported], [[1], [BUG]])
  assert.equal(call(throwing), undefined)
  assert.equal(
    call((one, other) => one + other, 1, 2),
    3,
  )
})

test('without reportError it goes to the console', (t) => {
  delete globalThis.reportError
  const error = t.mock.method(console, 'error', () => {})
  call(throwing)
  assert.deepEqual(error.mock.calls[0].arguments, [BUG])
})

for (const name of ['listener', 'onFrame', 'onBegun', 'onEnded']) {
  test(`a store's answer ends though its ${name} throws`, async () => {
    const transport = new FakeTransport()
    const options = name === 'listener' ? {} : { [name]: throwing }
    const store = new ChatStore({ transport, session_id: 's', known: false, ...options })
    if (name === 'listener') store.subscribe(throwing)
    const ended = store.send('hi')
    await settle()
    const reading = transport.readings[0]
    reading.accept()
    const stream = new FakeStream(reading.stream_id, 1)
    assert.deepEqual(reading.deliver(...stream.answer('a', 'b')), ['next', 'next', 'next', 'next'])
    reading.end()
    await ended
    const { busy, messages } = store.getSnapshot()
    assert.deepEqual([busy, messages.at(-1).content, messages.at(-1).status], [false, 'ab', 'complete'])
    assert.ok(reported.length > 0)
  })
}

for (const name of ['start', 'resume', 'cancel', 'watch', 'unwatch']) {
  test(`a store survives a transport whose ${name} throws`, async () => {
    const transport = Object.assign(new FakeTransport(), { [name]: throwing })
    const store = new ChatStore({ transport, session_id: 's', known: false })
    store.watch()
    const ended = name === 'resume' ? store.resume(A) : store.send('hi')
    await settle()
    if (name === 'cancel') {
      await store.stop()
      assert.match(store.getSnapshot().error, /^Could not stop/)
      // The next one interrupts it, and is not taken: then the first has to be stopped.
      transport.readings[0].accept()
      const next = store.send('again')
      await settle()
      transport.readings[1].fail(new Error('refused'))
      await next
    }
    if (name !== 'start' && name !== 'resume') store.close()
    await ended
    assert.equal(store.getSnapshot().busy, false)
  })
}

test('a reading whose leave throws does not keep a store from closing', async () => {
  const transport = new FakeTransport()
  const { start } = transport
  transport.start = (...args) => ({ ...start.apply(transport, args), leave: throwing })
  const store = new ChatStore({ transport, session_id: 's', known: false })
  store.send('hi')
  await settle()
  store.close()
  assert.deepEqual(reported, [BUG])
  assert.deepEqual(transport.unwatched, ['s'])
})

test('a client goes on though all its listeners throw', async () => {
  const transport = new FakeConnection()
  const client = new ChatClient({ base: 'http://host:1/', transport, fetch: fakeFetch(empty) })
  client.subscribe(throwing)
  for (const event of ['frame', 'ended', 'connection', 'session', 'sessions']) {
    client.on(event, throwing)
  }
  transport.become('websocket')
  const ended = client.send('hi')
  await settle()
  const reading = transport.readings[0]
  reading.accept()
  reading.deliver(...new FakeStream(reading.stream_id, 1).answer('a'))
  reading.end()
  await ended
  assert.equal(client.getSnapshot().busy, false)
  await client.open()
  assert.deepEqual(client.getSnapshot().messages, [])
  client.close()
  assert.ok(reported.every((error) => error === BUG))
})

for (const name of ['wake', 'check', 'close']) {
  test(`a client survives a transport whose ${name} throws`, async () => {
    const window = Object.assign(new EventTarget(), {
      document: Object.assign(new EventTarget(), { hidden: false }),
    })
    const transport = Object.assign(new FakeConnection(), { [name]: throwing })
    const fetch = fakeFetch(empty)
    const client = new ChatClient({ base: 'http://host:1/', transport, window, fetch })
    client.connect()
    transport.state = 'http'
    window.dispatchEvent(new Event('focus'))
    await settle()
    client.close()
    assert.ok(name === 'check' || reported.includes(BUG))
  })
}

test('the list is brought up to date though a listener throws', async () => {
  const fetch = fakeFetch(empty)
  const list = new SessionList({ base: 'http://host:1/', fetch, onRemoved: throwing })
  list.subscribe(throwing)
  await list.load()
  for (let count = 2; count <= 4; count++) {
    list.touch()
    await settle()
    assert.equal(fetch.calls.length, count)
  }
  fetch.calls.length = 0
  assert.equal(await list.remove('s'), true)
  assert.ok(reported.includes(BUG))
})

test('over a WebSocket the frames after one whose listener throws arrive', async () => {
  const WebSocket = fakeWebSocket()
  const transport = new WebSocketTransport({ base: 'http://host:1/', WebSocket, onLost: throwing })
  const seen = []
  const reading = transport.start(request, (frame) => {
    seen.push(frame.type)
    throw BUG
  })
  transport.watch('s', throwing)
  const [socket] = WebSocket.sockets
  socket.open()
  await reading.accepted
  const other = new FakeStream('bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb', 2)
  socket.receive(other.thinking(), ...new FakeStream(A, 1).answer('a', 'b'))
  await reading.closed
  assert.deepEqual(seen, ['status', 'token', 'token', 'done'])
  assert.equal(reported.length, 5)
  socket.die()
  assert.equal(reported.length, 6)
})

test('over HTTP the frames after one whose listener throws arrive', async () => {
  const fetch = fakeFetch(() => new Response(toLines(new FakeStream(A, 1).answer('a'))))
  const transport = new HttpTransport({ base: 'http://host:1/', fetch })
  await transport.start(request, throwing).closed
  assert.deepEqual(reported, [BUG, BUG, BUG])
})

test('a fetch that throws is a connection that failed', async () => {
  const transport = new HttpTransport({ base: 'http://host:1/', fetch: throwing })
  const lost = { name: 'ConnectionLost' }
  await assert.rejects(transport.call('/api/info'), lost)
  await assert.rejects(transport.probe(), lost)
  await assert.rejects(transport.start(request, () => 'next').closed, lost)
})

test('a socket that takes no message fails what was asked on it', async () => {
  const WebSocket = fakeWebSocket()
  const transport = new WebSocketTransport({ base: 'http://host:1/', WebSocket })
  const opening = transport.connect()
  const [socket] = WebSocket.sockets
  socket.open()
  await opening
  socket.send = throwing
  await assert.rejects(transport.start(request, () => 'next').closed, { name: 'ConnectionLost' })
  await assert.rejects(transport.cancel(A), { name: 'ConnectionLost' })
  transport.watch('s', () => {})
  transport.unwatch('s')
  transport.close()
})

test('a transport tries again though its listeners, its backoff and its ticket throw', async () => {
  let tries = 0
  const fetch = fakeFetch((path) => {
    if (path === '/livez') return Response.json({ alive: true })
    if ((tries += 1) < 2) throw new TypeError('fetch failed')
    return new Response(toLines(new FakeStream(A, 1).answer('a', 'b')))
  })
  const transport = new FallbackTransport({
    base: 'http://host:1/',
    WebSocket: blockedWebSocket(),
    fetch,
    getTicket: throwing,
    backoff: throwing,
    sleep: settle,
  })
  transport.subscribe(throwing)
  const seen = []
  const reading = transport.start(request, (frame) => {
    seen.push(frame.text)
    throw BUG
  })
  await reading.closed
  assert.deepEqual(seen, [undefined, 'a', 'b', undefined])
  transport.close()
})
