import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ConnectionLost } from '../../static/js/errors.js'
import { deferred } from '../../static/js/reading.js'
import { WebSocketTransport } from '../../static/js/transport-ws.js'
import { FakeStream, fakeWebSocket, settle, toLines } from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const B = 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb'

function setUp(options) {
  const WebSocket = fakeWebSocket()
  const transport = new WebSocketTransport({ base: 'http://host:1/page', WebSocket, ...options })
  return { transport, sockets: WebSocket.sockets, WebSocket }
}

async function opened(options) {
  const { transport, sockets, WebSocket } = setUp(options)
  const connected = transport.connect()
  sockets[0].open()
  await connected
  return { transport, socket: sockets[0], sockets, WebSocket }
}

function collect(transport, stream_id) {
  const frames = []
  const request = { prompt: 'hi', session_id: 's', stream_id }
  const reading = transport.start(request, (frame) => (frames.push(frame), 'next'))
  return { frames, ...reading }
}

test('it speaks the subprotocol, at the page’s own server', async () => {
  const { socket } = await opened()
  assert.equal(socket.url, 'ws://host:1/ws')
  assert.deepEqual(socket.protocol, ['jarvis-stream.v1'])
  const secure = setUp({ base: 'https://host/' })
  secure.transport.connect()
  assert.equal(secure.sockets[0].url, 'wss://host/ws')
  secure.sockets[0].open()
})

test('a ticket is asked for before each handshake, and goes along with it', async () => {
  const tickets = ['one', 'two']
  const getTicket = async () => tickets.shift()
  const { transport, sockets } = setUp({ getTicket })
  for (const [index, ticket] of [...tickets].entries()) {
    const connected = transport.connect()
    await settle()
    assert.deepEqual(sockets[index].protocol, ['jarvis-stream.v1', `jarvis-stream.ticket.${ticket}`])
    sockets[index].open()
    await connected
    sockets[index].die()
  }
})

test('without a ticket there is no handshake', async () => {
  const getTicket = async () => {
    throw new ConnectionLost('The server cannot be reached.')
  }
  const { transport, sockets } = setUp({ getTicket })
  await assert.rejects(transport.connect(), { name: 'ConnectionLost' })
  assert.equal(sockets.length, 0)
})

test('the sign-in of an open socket is renewed before it expires, again and again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const tickets = ['two', 'three']
  const { transport, sockets } = setUp({
    getTicket: async () => ({ ticket: 'one', sign_in_expires_in: 100 }),
    renewTicket: async () => ({ ticket: tickets.shift() }),
  })
  const connected = transport.connect()
  await settle()
  const [socket] = sockets
  socket.open()
  await connected
  t.mock.timers.tick(69_000)
  await settle()
  assert.deepEqual(socket.sent, [])
  t.mock.timers.tick(1_000) // 30 s before the end
  await settle()
  assert.deepEqual(socket.sent, [{ type: 'reauthenticate', ticket: 'two' }])
  socket.receive({ type: 'status', status: 'reauthenticated', expires_in: 10 })
  t.mock.timers.tick(5_000) // the middle of a short one
  await settle()
  assert.deepEqual(socket.sent[1], { type: 'reauthenticate', ticket: 'three' })
  socket.receive({ type: 'status', status: 'reauthenticated', expires_in: null })
  t.mock.timers.tick(3_600_000)
  await settle()
  assert.equal(socket.sent.length, 2)
})

test('a renewal that fails is tried again while the sign-in lasts', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let tries = 0
  const { transport, sockets } = setUp({
    getTicket: async () => ({ ticket: 'one', sign_in_expires_in: 60 }),
    renewTicket: async () => {
      tries += 1
      throw new ConnectionLost('The server cannot be reached.')
    },
  })
  const connected = transport.connect()
  await settle()
  sockets[0].open()
  await connected
  for (let second = 0; second < 60; second++) {
    t.mock.timers.tick(1_000)
    await settle()
  }
  assert.ok(tries >= 3 && tries <= 6, String(tries))
  transport.close()
})

test('an answer is read to its last frame, several lines in a message', async () => {
  const { transport, socket } = await opened()
  const { frames, closed, accepted } = collect(transport, A)
  await accepted
  assert.deepEqual(socket.sent, [{ type: 'start', prompt: 'hi', session_id: 's', stream_id: A }])
  const answer = new FakeStream(A, 1).answer('a', 'b')
  socket.receive(answer[0])
  socket.receive(...answer.slice(1))
  await closed
  assert.deepEqual(frames, answer)
})

test('answers of several streams on one socket each find their reader', async () => {
  const { transport, socket } = await opened()
  const [a, b] = [collect(transport, A), collect(transport, B)]
  const [ofA, ofB] = [new FakeStream(A, 1).answer('a'), new FakeStream(B, 2).answer('b')]
  for (const index of [0, 1, 2]) socket.receive(ofA[index], ofB[index])
  await Promise.all([a.closed, b.closed])
  assert.deepEqual([a.frames, b.frames], [ofA, ofB])
})

test('starts go out in the order of the calls, once the socket is open', async () => {
  const { transport, sockets } = setUp()
  const [a, b] = [collect(transport, A), collect(transport, B)]
  assert.equal(sockets.length, 1)
  sockets[0].open()
  await Promise.all([a.accepted, b.accepted])
  assert.deepEqual(sockets[0].sent.map(({ stream_id }) => stream_id), [A, B])
})

test('a handshake that fails is a ConnectionLost', async () => {
  const { transport, sockets } = setUp()
  const { closed, accepted } = collect(transport, A)
  sockets[0].die()
  await assert.rejects(closed, { name: 'ConnectionLost' })
  await accepted
})

test('a handshake that never ends is given up', async () => {
  const { transport } = setUp({ handshakeTimeout: 1 })
  await assert.rejects(transport.connect(), { name: 'ConnectionLost' })
})

test('where there is no WebSocket, or none is allowed, it is a ConnectionLost', async () => {
  const missing = new WebSocketTransport({ base: 'http://host/', WebSocket: null })
  await assert.rejects(missing.connect(), { name: 'ConnectionLost' })
  const { transport, WebSocket } = setUp()
  WebSocket.onCreate = () => {
    throw new DOMException('blocked', 'SecurityError')
  }
  await assert.rejects(transport.connect(), { name: 'ConnectionLost' })
})

test('a socket that dies fails what was under way, says so, and the next call opens another', async () => {
  let lost = 0
  const { transport, socket, sockets } = await opened({ onLost: () => (lost += 1) })
  const { closed } = collect(transport, A)
  const stopping = transport.cancel(A)
  await settle()
  socket.die()
  await assert.rejects(closed, { name: 'ConnectionLost' })
  await assert.rejects(stopping, { name: 'ConnectionLost' })
  assert.equal(lost, 1)
  const next = collect(transport, B)
  sockets[1].open()
  await next.accepted
})

test('the late death of an old socket does not touch the new one', async () => {
  const { transport, socket, sockets } = await opened()
  const old = collect(transport, A)
  await settle()
  socket.close() // closing: not open any more, its close event still to come
  const fresh = collect(transport, B)
  sockets[1].open()
  await fresh.accepted
  socket.die()
  await assert.rejects(old.closed, { name: 'ConnectionLost' })
  const answer = new FakeStream(B, 1).answer('b')
  sockets[1].receive(...answer)
  await fresh.closed
  assert.deepEqual(fresh.frames, answer)
})

test('a refused start is Refused, and the socket goes on', async () => {
  const { transport, socket } = await opened()
  const { closed } = collect(transport, A)
  await settle()
  socket.receive({ type: 'error', code: 'conflict', error: 'Busy.', stream_id: A })
  await assert.rejects(closed, { name: 'Refused', code: 'conflict', message: 'Busy.' })
  assert.equal(socket.readyState, 1)
})

test('a stop is done when the server says so', async () => {
  const { transport, socket } = await opened()
  const stopping = transport.cancel(A)
  await settle()
  assert.deepEqual(socket.sent, [{ type: 'cancel', stream_id: A }])
  const reply = { type: 'status', status: 'cancelled', stream_id: A, cancelled: true, clean: true }
  socket.receive(reply)
  assert.deepEqual(await stopping, reply)
})

test('who asks twice for a stop has one answer, as soon as it is there', async () => {
  const { transport, socket } = await opened()
  const stopping = [transport.cancel(A), transport.cancel(A)]
  await settle()
  assert.equal(socket.sent.length, 1)
  socket.receive({ type: 'status', status: 'cancelled', stream_id: A, cancelled: true, clean: true })
  const [first, second] = await Promise.all(stopping)
  assert.equal(first, second)
})

test('a refusal after frames have come belongs to the stop, not to the answer', async () => {
  const { transport, socket } = await opened()
  const { closed, frames } = collect(transport, A)
  const stream = new FakeStream(A, 1)
  await settle()
  socket.receive(stream.thinking())
  const stopping = transport.cancel(A)
  await settle()
  socket.receive({ type: 'error', code: 'too_many', error: 'Too many stops.', stream_id: A })
  await assert.rejects(stopping, { name: 'Refused', code: 'too_many' })
  socket.receive(stream.done())
  await closed
  assert.equal(frames.length, 2)
})

test('who leaves hears nothing more, and is not failed by the socket’s end', async () => {
  const { transport, socket } = await opened()
  const { frames, closed, leave } = collect(transport, A)
  const stream = new FakeStream(A, 1)
  await settle()
  socket.receive(stream.thinking())
  leave()
  socket.receive(stream.token('a'))
  socket.die()
  await closed
  assert.equal(frames.length, 1)
})

test('who leaves before the socket is open has asked for nothing', async () => {
  const { transport, sockets } = setUp()
  const { leave, closed } = collect(transport, A)
  leave()
  sockets[0].open()
  await closed
  await settle()
  assert.deepEqual(sockets[0].sent, [])
})

test('nonsense from the server ends the socket, after the frames before it', async () => {
  const { transport, socket } = await opened()
  const { frames, closed } = collect(transport, A)
  await settle()
  socket.receive(toLines([new FakeStream(A, 1).thinking()]) + 'nonsense\n')
  await assert.rejects(closed, { name: 'BadLine' })
  assert.equal(frames.length, 1)
  assert.equal(socket.readyState, 2)
})

test('close leaves everything', async () => {
  const { transport, socket } = await opened()
  const { closed } = collect(transport, A)
  transport.close()
  await closed
  assert.equal(socket.readyState, 2)
})

test('close while a ticket is on its way opens no socket, then or later', async () => {
  const ticket = deferred()
  const { transport, sockets } = setUp({ getTicket: () => ticket.promise })
  const connected = transport.connect()
  const { closed } = collect(transport, A)
  transport.close()
  ticket.resolve('one')
  await assert.rejects(connected, { name: 'ConnectionLost' })
  await closed
  await assert.rejects(transport.cancel(A), { name: 'ConnectionLost' })
  assert.equal(sockets.length, 0)
})

// Watching

/** A transport that watches session `s`, and what it was told. */
function watching(transport) {
  const told = []
  transport.watch('s', (first) => told.push(first))
  return told
}

test('a watched session is watched on every socket there is', async () => {
  const { transport, socket, sockets } = await opened()
  watching(transport)
  const watch = { type: 'watch', session_id: 's' }
  assert.deepEqual(socket.sent, [watch])
  socket.die()
  const connected = transport.connect()
  sockets[1].open()
  await connected
  assert.deepEqual(sockets[1].sent, [watch])
})

test('of a stream that nobody reads here, the first frame is told, to who watches its session', async () => {
  const { transport, socket } = await opened()
  const told = watching(transport)
  const frames = new FakeStream(A, 1).answer('a')
  socket.receive(...frames, { ...new FakeStream(B, 1).thinking(), session_id: 'another' })
  assert.deepEqual(told, [frames[0]])
})

test('of a stream that is read here nothing is told', async () => {
  const { transport, socket } = await opened()
  const told = watching(transport)
  const { closed } = collect(transport, A)
  await settle()
  socket.receive(...new FakeStream(A, 1).answer('a'))
  await closed
  assert.deepEqual(told, [])
})

test('a resume begins where it was asked to, whatever the watched stream had sent before', async () => {
  const { transport, socket } = await opened()
  watching(transport)
  const sent = new FakeStream(A, 1).answer(...'abcdef')
  socket.receive(sent[0])
  const frames = []
  const { closed } = transport.resume(A, 3, (frame) => (frames.push(frame), 'next'))
  await settle()
  socket.receive(sent[1], sent[2], sent[5], sent[6]) // of the watch
  socket.receive(...sent.slice(3))
  await closed
  assert.deepEqual(frames, sent.slice(3))
})

test('a last frame is told though the first one never came', async () => {
  const { transport, socket } = await opened()
  const { frames, closed } = collect(transport, A)
  await settle()
  const answer = new FakeStream(A, 1).answer('a', 'b')
  socket.receive(...answer.slice(1))
  await closed
  assert.deepEqual(frames, answer.slice(-1)) // a gap, which whoever reads asks for
})

test('a stream that shows itself right after we began to watch may not be new', async () => {
  let now = 0
  const { transport, socket } = await opened({ now: () => now })
  const told = []
  transport.watch('s', (first, isNew) => told.push([first.stream_id, isNew]))
  socket.receive(new FakeStream(A, 1).thinking())
  now += 1_000
  socket.receive(new FakeStream(B, 2).thinking())
  assert.deepEqual(told, [
    [A, false],
    [B, true],
  ])
})

test('a session that is watched no more is not told of, on this socket or the next', async () => {
  const { transport, socket, sockets } = await opened()
  const told = watching(transport)
  transport.unwatch('s')
  transport.unwatch('never watched')
  assert.deepEqual(socket.sent.slice(1), [{ type: 'unwatch', session_id: 's' }])
  socket.receive(new FakeStream(A, 1).thinking())
  assert.deepEqual(told, [])
  socket.die()
  const connected = transport.connect()
  sockets[1].open()
  await connected
  assert.deepEqual(sockets[1].sent, [])
})

// Signs of life

test('a socket that was heard a moment ago is not asked whether it lives', async () => {
  let now = 0
  const { transport, socket } = await opened({ now: () => now, pingTimeout: 0 })
  now += 999
  await transport.check(1_000)
  assert.deepEqual(socket.sent, [])
})

test('a socket that gives no sign of life is let go of', async () => {
  let lost = 0
  let now = 0
  const onLost = () => (lost += 1)
  const { transport, socket } = await opened({ now: () => now, pingTimeout: 0, onLost })
  const { closed } = collect(transport, A)
  await settle()
  now += 60_000
  await Promise.all([transport.check(1_000), transport.check(1_000)])
  assert.deepEqual(socket.sent.slice(1), [{ type: 'ping' }])
  await assert.rejects(closed, { name: 'ConnectionLost' })
  assert.deepEqual([lost, socket.readyState], [1, 2])
})

test('a clock that is set back hides no silence', async () => {
  let now = 3_600_000
  const { transport, socket } = await opened({ now: () => now, pingTimeout: 0 })
  now = 0
  await transport.check(1_000)
  assert.deepEqual(socket.sent, []) // for all we know it was heard just now
  now += 1_000
  await transport.check(1_000)
  assert.deepEqual(socket.sent, [{ type: 'ping' }])
  assert.equal(socket.readyState, 2)
})

test('a sign of life that comes when the clock has been set back is one', async () => {
  let now = 3_600_000
  const { transport, socket, WebSocket } = await opened({ now: () => now, pingTimeout: 0 })
  WebSocket.onSend = () => {
    now = 0
    socket.receive({ type: 'status', status: 'pong' })
  }
  now += 1_000
  await transport.check(1_000)
  assert.deepEqual([socket.sent, socket.readyState], [[{ type: 'ping' }], 1])
})
