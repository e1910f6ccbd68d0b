import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'

import { judge, nowhere, read, take } from '../../static/js/guard.js'
import { deferred } from '../../static/js/reading.js'
import { backoff, sleep, steady, waitAtMost } from '../../static/js/time.js'
import { FallbackTransport } from '../../static/js/transport.js'
import {
  FakeStream,
  blockedWebSocket,
  fakeFetch,
  fakeWebSocket,
  openResponse,
  refusal,
  settle,
  toLines,
} from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const request = { prompt: 'hi', session_id: 's', stream_id: A }

/** A WebSocket that always opens. */
function workingWebSocket() {
  const WebSocket = fakeWebSocket()
  WebSocket.onCreate = (socket) => setImmediate(() => socket.readyState === 0 && socket.open())
  return WebSocket
}

const unreachable = () => Promise.reject(new TypeError('fetch failed'))

const transports = []
afterEach(() => transports.splice(0).forEach((transport) => transport.close()))

function setUp({ WebSocket, answer = unreachable, ...options }) {
  const fetch = fakeFetch(answer)
  const states = []
  const pauses = []
  const transport = new FallbackTransport({
    base: 'http://host:1/',
    WebSocket,
    fetch,
    backoff: (tries) => {
      pauses.push(tries)
      return 0
    },
    sleep: settle,
    ...options,
  })
  transports.push(transport)
  transport.subscribe(() => {
    if (transport.state !== (states.at(-1) ?? 'connecting')) states.push(transport.state)
  })
  return { transport, fetch, states, pauses }
}

/** Reads as the store does: with the guard. */
function collect(transport) {
  const texts = []
  const view = nowhere()
  read(view, A)
  const reading = transport.start(request, (frame) => {
    const verdict = judge(view, frame)
    if (verdict === 'next') {
      take(view, frame)
      if (frame.text) texts.push(frame.text)
    }
    return verdict
  })
  return { texts, ...reading }
}

test('an answer that gave its connection to another tab is resumed behind its last piece', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const stream = new FakeStream(A, 1)
  const frames = stream.answer('a', 'b')
  const first = openResponse()
  const { transport, fetch, pauses, states } = setUp({
    answer: (path) => {
      if (path === '/livez') return new Response('{}')
      if (path === '/api/chat') return first.response
      return new Response(toLines(frames.slice(2)))
    },
    responses: { isCrowded: true, opened() {}, closed() {} },
  })
  const { texts, closed } = collect(transport)
  await settle()
  first.write(...frames.slice(0, 2))
  await settle()
  t.mock.timers.tick(1_000)
  first.breakOff() // as an aborted fetch does
  await closed
  assert.deepEqual(texts, ['a', 'b'])
  assert.deepEqual(fetch.calls.map(({ path }) => path), ['/api/chat', `/api/streams/${A}?after=2`])
  assert.deepEqual([pauses, states], [[], ['http']])
})

test('WebSocket first', async () => {
  const WebSocket = workingWebSocket()
  const { transport, fetch } = setUp({ WebSocket })
  WebSocket.onSend = (socket) => socket.receive(...new FakeStream(A, 1).answer('a', 'b'))
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b'])
  assert.equal(transport.state, 'websocket')
  assert.equal(fetch.calls.length, 0)
})

test('the first handshake that fails falls back to HTTP at once', async () => {
  const WebSocket = blockedWebSocket()
  const answer = () => new Response(toLines(new FakeStream(A, 1).answer('a')))
  const { transport, pauses } = setUp({ WebSocket, answer })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a'])
  assert.equal(transport.state, 'http')
  assert.equal(WebSocket.sockets.length, 1)
  assert.deepEqual(pauses, [])
})

test('a blocked WebSocket is remembered for a while, and then tried again', async () => {
  const WebSocket = blockedWebSocket()
  let now = 0
  const answer = () => new Response(toLines(new FakeStream(A, 1).answer('a')))
  const { transport } = setUp({ WebSocket, answer, now: () => now })
  await collect(transport).closed
  await collect(transport).closed
  assert.equal(WebSocket.sockets.length, 1)
  now += 5 * 60_000
  await collect(transport).closed
  assert.equal(WebSocket.sockets.length, 2)
})

test('a clock that is set back does not make that while longer', async () => {
  const WebSocket = blockedWebSocket()
  let now = 3_600_000
  const { transport } = setUp({ WebSocket, answer: () => Response.json({}), now: () => now })
  await transport.connect()
  now = 0
  await transport.connect()
  assert.equal(WebSocket.sockets.length, 1)
  now += 5 * 60_000
  await transport.connect()
  assert.equal(WebSocket.sockets.length, 2)
})

test('a WebSocket that has worked before is tried again soon', async () => {
  const WebSocket = workingWebSocket()
  let now = 0
  const answer = () => new Response(toLines(new FakeStream(A, 1).answer('a')))
  const { transport } = setUp({ WebSocket, answer, now: () => now })
  WebSocket.onSend = (socket) => socket.receive(...new FakeStream(A, 1).answer('a'))
  await collect(transport).closed
  const working = WebSocket.onCreate
  WebSocket.onCreate = (socket) => setImmediate(() => socket.die())
  WebSocket.sockets[0].die()
  while (transport.state !== 'http') await settle()
  WebSocket.onCreate = working
  now += 5_000
  await collect(transport).closed
  assert.equal(transport.state, 'websocket')
})

test('when HTTP fails as well it was the server: the WebSocket is not remembered as blocked', async () => {
  const WebSocket = fakeWebSocket()
  let up = false
  WebSocket.onCreate = (socket) => setImmediate(() => (up ? socket.open() : socket.die()))
  WebSocket.onSend = (socket) => socket.receive(...new FakeStream(A, 1).answer('a'))
  const { transport } = setUp({
    WebSocket,
    answer: () => {
      up = true
      return unreachable()
    },
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a'])
  assert.equal(transport.state, 'websocket')
})

test('an answer whose socket dies in the middle is resumed there, on a new socket', async () => {
  const WebSocket = workingWebSocket()
  const answer = new FakeStream(A, 1).answer('a', 'b', 'c')
  WebSocket.onSend = (socket, message) => {
    if (message.type === 'resume') return socket.receive(...answer.slice(message.after))
    socket.receive(...answer.slice(0, 2))
    setImmediate(() => socket.die())
  }
  const { transport, states } = setUp({ WebSocket })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b', 'c'])
  assert.deepEqual(WebSocket.sockets[1].sent, [{ type: 'resume', stream_id: A, after: 2 }])
  assert.deepEqual(states, ['websocket', 'reconnecting', 'websocket'])
})

test('if the socket cannot be opened again, the answer is resumed over HTTP', async () => {
  const WebSocket = fakeWebSocket()
  const frames = new FakeStream(A, 1).answer('a', 'b', 'c')
  WebSocket.onCreate = (socket) =>
    setImmediate(() => (WebSocket.sockets.length === 1 ? socket.open() : socket.die()))
  WebSocket.onSend = (socket) => {
    socket.receive(...frames.slice(0, 3))
    setImmediate(() => socket.die())
  }
  const { transport, fetch } = setUp({
    WebSocket,
    answer: (path) =>
      path === '/livez' ? Response.json({}) : new Response(toLines(frames.slice(3))),
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b', 'c'])
  assert.ok(fetch.calls.some(({ path }) => path === `/api/streams/${A}?after=3`))
  assert.equal(transport.state, 'http')
})

test('an HTTP body that breaks off in the middle is resumed from the cursor', async () => {
  const frames = new FakeStream(A, 1).answer('a', 'b')
  const { transport, fetch } = setUp({
    WebSocket: blockedWebSocket(),
    answer: (path) => new Response(toLines(path === '/api/chat' ? frames.slice(0, 2) : frames.slice(2))),
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b'])
  assert.deepEqual(fetch.calls.map(({ path }) => path), ['/api/chat', `/api/streams/${A}?after=2`])
})

test('before the server has shown that it knows the stream, the same start is sent again', async () => {
  const WebSocket = workingWebSocket()
  WebSocket.onSend = (socket) => setImmediate(() => socket.die())
  const { transport, fetch } = setUp({
    WebSocket,
    answer: () => new Response(toLines(new FakeStream(A, 1).answer('a'))),
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a'])
  const { path, init } = fetch.calls.find(({ path }) => path !== '/livez')
  assert.deepEqual([path, JSON.parse(init.body)], ['/api/chat', { ...request, after: 0 }])
})

test('a gap is healed by resuming over HTTP', async () => {
  const WebSocket = workingWebSocket()
  const frames = new FakeStream(A, 1).answer('a', 'b', 'c')
  WebSocket.onSend = (socket) => socket.receive(frames[0], frames[1], frames[3], frames[4])
  const { transport, fetch } = setUp({
    WebSocket,
    answer: () => new Response(toLines(frames.slice(2))),
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b', 'c'])
  assert.deepEqual(fetch.calls.map(({ path }) => path), [`/api/streams/${A}?after=2`])
})

test('a gap that stays is given up', async () => {
  const frames = new FakeStream(A, 1).answer('a', 'b', 'c')
  const { transport } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => new Response(toLines([frames[0], frames[3], frames[4]])),
  })
  await assert.rejects(collect(transport).closed, { name: 'ConnectionLost' })
})

for (const status of [404, 410]) {
  test(`a resume that is answered ${status} is Refused, and not tried again`, async () => {
    const frames = new FakeStream(A, 1).answer('a', 'b')
    const { transport, fetch } = setUp({
      WebSocket: blockedWebSocket(),
      answer: (path) =>
        path === '/api/chat'
          ? new Response(toLines(frames.slice(0, 2)))
          : refusal(status, 'gone', 'No longer here.'),
    })
    await assert.rejects(collect(transport).closed, { name: 'Refused', code: 'gone' })
    assert.equal(fetch.calls.length, 2)
  })
}

test('tries are bounded, and paused between', async () => {
  const { transport, fetch, pauses } = setUp({ WebSocket: blockedWebSocket() })
  await assert.rejects(collect(transport).closed, { name: 'ConnectionLost' })
  assert.equal(fetch.calls.filter(({ path }) => path === '/api/chat').length, 8)
  assert.deepEqual(pauses.slice(0, 7), [1, 2, 3, 4, 5, 6, 7])
  assert.notEqual(transport.state, 'http')
})

test('progress begins the count anew', async () => {
  const frames = new FakeStream(A, 1).answer(...'abcdefghijklmnop')
  let served = 0
  const { transport } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => new Response(toLines([frames[served++]])),
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.equal(texts.join(''), 'abcdefghijklmnop')
})

test('who leaves ends the tries', async () => {
  const { transport, fetch } = setUp({
    WebSocket: blockedWebSocket(),
    backoff: () => 60_000,
    sleep,
  })
  const { closed, leave } = collect(transport)
  while (fetch.calls.length === 0) await settle()
  await settle()
  leave()
  await closed
  assert.equal(fetch.calls.length, 1)
})

test('a stop goes over the socket, and over HTTP when there is none', async () => {
  const WebSocket = workingWebSocket()
  const reply = { type: 'status', status: 'cancelled', stream_id: A, cancelled: true }
  WebSocket.onSend = (socket) => socket.receive(reply)
  assert.deepEqual(await setUp({ WebSocket }).transport.cancel(A), reply)
  const report = { stream_id: A, cancelled: true }
  const overHttp = setUp({ WebSocket: blockedWebSocket(), answer: () => Response.json(report) })
  assert.deepEqual(await overHttp.transport.cancel(A), report)
})

test('a stop whose socket dies is told over another connection', async () => {
  const WebSocket = workingWebSocket()
  WebSocket.onSend = (socket) => setImmediate(() => socket.die())
  const report = { stream_id: A, cancelled: true }
  const { transport } = setUp({ WebSocket, answer: () => Response.json(report) })
  assert.deepEqual(await transport.cancel(A), report)
})

test('connect says how the server is reached', async () => {
  const live = setUp({ WebSocket: workingWebSocket() })
  await live.transport.connect()
  assert.equal(live.transport.state, 'websocket')
  const blocked = setUp({ WebSocket: blockedWebSocket(), answer: () => Response.json({}) })
  await blocked.transport.connect()
  assert.equal(blocked.transport.state, 'http')
})

test('an idle client whose server goes away is offline, and live again when it is back', async () => {
  const WebSocket = workingWebSocket()
  const { transport, states } = setUp({ WebSocket })
  await transport.connect()
  const working = WebSocket.onCreate
  WebSocket.onCreate = (socket) => setImmediate(() => socket.die())
  WebSocket.sockets[0].die()
  while (transport.state !== 'offline') await settle()
  WebSocket.onCreate = working
  while (transport.state !== 'websocket') await settle()
  assert.deepEqual(states, ['websocket', 'reconnecting', 'offline', 'websocket'])
})

test('idle sockets that close as soon as they are open are not opened without a pause', async () => {
  let now = 1_000
  const WebSocket = fakeWebSocket()
  WebSocket.onCreate = (socket) => setImmediate(() => {
    socket.open()
    setImmediate(() => socket.die())
  })
  const answer = () => new Response('{}')
  const { transport } = setUp({ WebSocket, answer, now: () => now })
  const opened = async () => {
    await transport.connect()
    for (let turn = 0; turn < 50; turn++) await settle()
    return WebSocket.sockets.length
  }
  assert.equal(await opened(), 2)
  assert.equal(transport.state, 'http')
  now += 60_000
  assert.equal(await opened(), 4)
  assert.equal(transport.state, 'http')
})

test('close ends reading and reconnecting', async () => {
  const { response, write } = openResponse()
  const { transport } = setUp({ WebSocket: blockedWebSocket(), answer: () => response })
  const { texts, closed, accepted } = collect(transport)
  await accepted
  const stream = new FakeStream(A, 1)
  write(stream.thinking(), stream.token('a'))
  while (texts.length === 0) await settle()
  transport.close()
  write(stream.token('b'))
  await closed
  assert.deepEqual(texts, ['a'])
})

test('close while a ticket is on its way ends connect, and asks the server nothing more', async () => {
  const ticket = deferred()
  const WebSocket = workingWebSocket()
  const { transport, fetch, states } = setUp({ WebSocket, getTicket: () => ticket.promise })
  const connected = transport.connect()
  transport.close()
  ticket.resolve('one')
  await connected
  assert.deepEqual([WebSocket.sockets, fetch.calls, states], [[], [], []])
})

test('a first try that fails is not accepted, and says nothing good of the server', async () => {
  const { response, write } = openResponse()
  let up = false
  let tried = 0
  const { transport, states } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => {
      tried += 1
      return up ? response : unreachable()
    },
  })
  const { closed, accepted } = collect(transport)
  let isAccepted = false
  accepted.then(() => (isAccepted = true))
  while (tried < 3) await settle()
  assert.equal(isAccepted, false)
  assert.ok(!states.includes('http'))
  up = true
  await accepted
  assert.equal(transport.state, 'http')
  write(...new FakeStream(A, 1).answer('a'))
  await closed
})

// Waking up

/** Pauses that end only when they are cut short. */
const endless = { backoff: () => 60_000, sleep: (ms, signal) => sleep(ms, signal) }

test('while it waits for the next try it says when that is, and whoever comes back ends the wait', async () => {
  let up = false
  const { transport } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => (up ? Response.json({}) : unreachable()),
    now: () => 1000,
    ...endless,
  })
  const connected = transport.connect()
  while (transport.retry_at === null) await settle()
  assert.deepEqual([transport.state, transport.retry_at], ['reconnecting', 61_000])
  up = true
  transport.wake()
  await connected
  assert.deepEqual([transport.state, transport.retry_at], ['http', null])
})

test('an answer that waits for its next try has it when somebody comes back', async () => {
  const frames = new FakeStream(A, 1).answer('a', 'b')
  let calls = 0
  const { transport } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => new Response(toLines(calls++ === 0 ? frames.slice(0, 2) : frames.slice(2))),
    ...endless,
  })
  const { texts, closed } = collect(transport)
  while (transport.retry_at === null) await settle()
  transport.wake()
  await closed
  assert.deepEqual(texts, ['a', 'b'])
})

test('a socket that slept and is dead is found out, and its answer resumed', async () => {
  const WebSocket = workingWebSocket()
  const frames = new FakeStream(A, 1).answer('a', 'b')
  WebSocket.onSend = (socket, { type, after }) => {
    if (type === 'start') socket.receive(...frames.slice(0, 2))
    if (type === 'resume') socket.receive(...frames.slice(after))
  }
  let now = 0
  const { transport } = setUp({ WebSocket, now: () => now, pingTimeout: 0 })
  const { texts, closed } = collect(transport)
  while (texts.length === 0) await settle()
  now += 3_600_000
  transport.wake()
  await closed
  assert.deepEqual(texts, ['a', 'b'])
  assert.deepEqual(WebSocket.sockets[0].sent.at(-1), { type: 'ping' })
  assert.equal(WebSocket.sockets.length, 2)
})

test('a socket that shows any sign of life is kept', async () => {
  const WebSocket = workingWebSocket()
  let now = 0
  WebSocket.onSend = (socket) => {
    now += 1
    socket.receive({ type: 'error', code: 'invalid', error: 'What is a ping?', stream_id: null })
  }
  const { transport } = setUp({ WebSocket, now: () => now, pingTimeout: 0 })
  await transport.connect()
  now += 3_600_000
  transport.wake()
  for (let turns = 0; turns < 5; turns++) await sleep(0)
  assert.deepEqual([transport.state, WebSocket.sockets.length], ['websocket', 1])
})

test('a response on which not even a heartbeat comes any more is given up, and resumed', async () => {
  const frames = new FakeStream(A, 1).answer('a', 'b')
  const silent = openResponse()
  let now = 0
  const { transport, fetch } = setUp({
    WebSocket: blockedWebSocket(),
    now: () => now,
    answer: (path, { signal }) => {
      if (path === '/livez') return Response.json({})
      if (path !== '/api/chat') return new Response(toLines(frames.slice(2)))
      signal.addEventListener('abort', () => silent.breakOff(signal.reason))
      return silent.response
    },
  })
  const { texts, closed } = collect(transport)
  while (fetch.calls.length === 0) await settle()
  silent.write(...frames.slice(0, 2))
  while (texts.length === 0) await settle()
  now += 44_000
  transport.check() // it may just have nothing to say
  await settle()
  assert.equal(fetch.calls.filter(({ path }) => path.startsWith('/api/')).length, 1)
  now += 1_000
  transport.check()
  await closed
  assert.deepEqual(texts, ['a', 'b'])
})

test('a response that has gone silent is found out though the clock was set back', async () => {
  const silent = openResponse()
  let now = 3_600_000
  const { transport, fetch } = setUp({
    WebSocket: blockedWebSocket(),
    now: () => now,
    answer: (path, { signal }) => {
      if (path === '/livez') return Response.json({})
      if (fetch.calls.length > 1) {
        return new Response(toLines(new FakeStream(A, 1).answer('a')))
      }
      signal.addEventListener('abort', () => silent.breakOff(signal.reason))
      return silent.response
    },
  })
  const { texts, closed, accepted } = collect(transport)
  await accepted
  now = 0
  transport.check()
  now += 45_000
  transport.check()
  await closed
  assert.deepEqual(texts, ['a'])
})

test('an idle page over HTTP notices that the server has gone, and that it is back', async () => {
  let up = true
  const { transport, states } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => (up ? Response.json({}) : unreachable()),
  })
  await transport.connect()
  up = false
  transport.check()
  while (transport.state !== 'offline') await settle()
  up = true
  while (transport.state !== 'http') await settle()
  assert.deepEqual(states, ['http', 'reconnecting', 'offline', 'http'])
})

test('an idle page over HTTP tries the WebSocket again after a while', async () => {
  const WebSocket = blockedWebSocket()
  let now = 0
  const { transport } = setUp({ WebSocket, now: () => now, answer: () => Response.json({}) })
  await transport.connect()
  transport.check()
  await transport.connect()
  assert.deepEqual([transport.state, WebSocket.sockets.length], ['http', 1])
  now += 5 * 60_000
  WebSocket.onCreate = (socket) => setImmediate(() => socket.open())
  transport.check()
  await transport.connect()
  assert.deepEqual([transport.state, WebSocket.sockets.length], ['websocket', 2])
})

// Refusals

/** A server that is just going, and says when to ask again. */
const unavailable = (seconds) => {
  const init = { status: 503, headers: { 'Retry-After': String(seconds) } }
  return Response.json({ code: 'unavailable', error: 'Later.' }, init)
}

test('a message that is refused is not sent again by itself', async () => {
  for (const answer of [() => unavailable(1), () => refusal(429, 'too_many', 'Slow down.')]) {
    const { transport, fetch } = setUp({ WebSocket: blockedWebSocket(), answer })
    await assert.rejects(collect(transport).closed, { name: 'Refused' })
    assert.equal(fetch.calls.length, 1)
  }
})

test('in mid-answer a server that is not there yet is asked again when it says', async () => {
  const frames = new FakeStream(A, 1).answer('a', 'b')
  const waits = []
  let calls = 0
  const { transport } = setUp({
    WebSocket: blockedWebSocket(),
    answer: () => {
      calls += 1
      if (calls === 2) return unavailable(7)
      if (calls === 3) return new Response('Bad Gateway', { status: 502 })
      return new Response(toLines(calls === 1 ? frames.slice(0, 2) : frames.slice(2)))
    },
    sleep: async (ms) => {
      waits.push(ms)
      await settle()
    },
  })
  const { texts, closed } = collect(transport)
  await closed
  assert.deepEqual(texts, ['a', 'b'])
  assert.deepEqual(waits, [0, 7000, 0])
})

test('backoff grows to its cap, with full jitter', () => {
  const longest = [1, 2, 3, 20].map((tries) => backoff(tries, { random: () => 1 }))
  assert.deepEqual(longest, [250, 500, 1000, 8000])
  assert.equal(backoff(20, { random: () => 0 }), 0)
})

test('a steady clock goes forward with the wall clock, and never back', () => {
  let now = 1_000
  const clock = steady(() => now)
  const times = [1_000, 5_000, 2_000, 2_500, 9_000].map((time) => ((now = time), clock()))
  assert.deepEqual(times, [1_000, 5_000, 5_000, 5_500, 12_000])
})

test('waiting at most ends with the promise, however it ends', async () => {
  await waitAtMost(Promise.resolve(), 60_000)
  await waitAtMost(Promise.reject(new Error('no matter')), 60_000)
  await waitAtMost(new Promise(() => {}), 1)
})
