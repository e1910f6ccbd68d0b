import assert from 'node:assert/strict'
import { test } from 'node:test'

import { createStreamHandler, handleStream } from '../../static/js/stream.js'
import { FakeStream, openResponse, settle, toLines } from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const B = 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb'

function recorder() {
  const calls = []
  return {
    calls,
    callbacks: {
      onDelta: (text, id) => calls.push(['delta', text, id]),
      onDone: (id, frame) => calls.push(['done', id, frame.finish_reason]),
      onError: (error, id) => calls.push(['error', error, id]),
      onStatus: (status, id) => calls.push(['status', status, id]),
    },
  }
}

async function read(response, extra = {}) {
  const { calls, callbacks } = recorder()
  const handle = await createStreamHandler({ ...callbacks, ...extra })(response)
  await handle.finished
  return calls
}

const body = (frames, init) => new Response(toLines(frames), init)

test('thinking, the pieces, complete and done, each with the stream’s id', async () => {
  assert.deepEqual(await read(body(new FakeStream(A, 1).answer('Hel', 'lo'))), [
    ['status', 'thinking', A],
    ['delta', 'Hel', A],
    ['delta', 'lo', A],
    ['status', 'complete', A],
    ['done', A, 'stop'],
  ])
})

test('the arguments one by one, as the seed has them', async () => {
  const { calls, callbacks } = recorder()
  const { onDelta, onDone, onError, onStatus } = callbacks
  const response = body(new FakeStream(A, 1).answer('x'))
  const handle = await handleStream(response, onDelta, onDone, onError, onStatus)
  await handle.finished
  assert.deepEqual(calls.map(([kind]) => kind), ['status', 'delta', 'status', 'done'])
})

test('with the id in a header, thinking is told before the first frame, and once', async () => {
  const { calls, callbacks } = recorder()
  const { response, write } = openResponse({ headers: { 'X-Stream-Id': A } })
  const handle = await createStreamHandler(callbacks)(response)
  assert.deepEqual(calls, [['status', 'thinking', A]])
  write(...new FakeStream(A, 1).answer('x'))
  await handle.finished
  assert.equal(calls.filter(([, status]) => status === 'thinking').length, 1)
})

test('frames without numbers are taken in order', async () => {
  const calls = await read(
    new Response(
      `{"type":"token","text":"a","stream_id":"${A}"}\n` +
        `{"type":"token","text":"X","stream_id":"${B}"}\n` +
        `{"type":"token","text":"a","stream_id":"${A}"}\n` +
        `{"type":"done","stream_id":"${A}"}`,
    ),
  )
  assert.deepEqual(
    calls.filter(([kind]) => kind === 'delta'),
    [
      ['delta', 'a', A],
      ['delta', 'a', A],
    ],
  )
  assert.deepEqual(calls.at(-1), ['done', A, undefined])
})

test('a last line without newline counts: done', async () => {
  const text = toLines(new FakeStream(A, 1).answer('x')).trimEnd()
  assert.deepEqual((await read(new Response(text))).at(-1), ['done', A, 'stop'])
})

test('a last line without newline counts: error', async () => {
  const stream = new FakeStream(A, 1)
  const text = toLines([stream.thinking(), stream.error('agent_error', 'Sorry.')]).trimEnd()
  assert.deepEqual((await read(new Response(text))).at(-1), ['error', 'Sorry.', A])
})

test('characters cut between chunks arrive whole', async () => {
  const bytes = new TextEncoder().encode(toLines(new FakeStream(A, 1).answer('日本語👩‍🚀')))
  const chunks = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
      controller.close()
    },
  })
  assert.deepEqual((await read(new Response(chunks)))[1], ['delta', '日本語👩‍🚀', A])
})

test('frames of another stream and repeated frames are dropped', async () => {
  const mine = new FakeStream(A, 2)
  const theirs = new FakeStream(B, 1)
  const [thinking, a, b] = [mine.thinking(), mine.token('a'), mine.token('b')]
  const frames = [thinking, a, ...theirs.answer('X'), a, thinking, b, mine.done()]
  const calls = await read(body(frames))
  assert.deepEqual(calls.filter(([kind]) => kind === 'delta').map(([, text]) => text), ['a', 'b'])
  assert.equal(calls.filter(([kind]) => kind === 'done').length, 1)
})

test('a response that begins in the middle of a stream is read from there', async () => {
  const [, , ...rest] = new FakeStream(A, 1).answer('a', 'b')
  assert.deepEqual((await read(body(rest))).slice(0, 2), [
    ['status', 'thinking', A],
    ['delta', 'b', A],
  ])
})

test('a missing piece is an error, never a silent hole', async () => {
  const [thinking, a, , c, done] = new FakeStream(A, 1).answer('a', 'b', 'c')
  const calls = await read(body([thinking, a, c, done]))
  assert.deepEqual(calls.at(-1), ['error', 'A piece of the answer is missing.', A])
  assert.ok(!calls.some(([, text]) => text === 'c'))
})

test('a response that ends before the answer does is an error', async () => {
  const stream = new FakeStream(A, 1)
  const calls = await read(body([stream.thinking(), stream.token('a')]))
  assert.deepEqual(calls.at(-1), ['error', 'The response ended before the answer did.', A])
})

test('a broken line is an error', async () => {
  const calls = await read(new Response('{"type":'))
  assert.deepEqual(calls, [['error', 'The server sent a line that is not JSON.', undefined]])
})

test('a response without a body is the caller’s error', async () => {
  await assert.rejects(read(new Response(null)), { message: 'No response body' })
})

test('abort works while the answer is coming, and is silent', async () => {
  const { calls, callbacks } = recorder()
  const { response, write } = openResponse()
  const handle = await createStreamHandler(callbacks)(response)
  const stream = new FakeStream(A, 1)
  write(stream.thinking(), stream.token('a'))
  await settle()
  handle.abort()
  await handle.finished
  assert.deepEqual(calls, [
    ['status', 'thinking', A],
    ['delta', 'a', A],
  ])
})

test('after an abort inside a callback no further one is called', async () => {
  const { response, write } = openResponse()
  const { calls, callbacks } = recorder()
  let handle
  const onDelta = (text) => {
    calls.push(text)
    handle.abort()
  }
  handle = await createStreamHandler({ ...callbacks, onStatus: undefined, onDelta })(response)
  write(...new FakeStream(A, 1).answer('a', 'b'))
  await handle.finished
  assert.deepEqual(calls, ['a'])
})

test('an AbortError of the caller’s own signal is silent', async () => {
  const { calls, callbacks } = recorder()
  const { response, breakOff } = openResponse()
  const handle = await createStreamHandler(callbacks)(response)
  breakOff(new DOMException('aborted', 'AbortError'))
  await handle.finished
  assert.deepEqual(calls, [])
})

test('a connection that breaks off is an error', async () => {
  const { calls, callbacks } = recorder()
  const { response, breakOff } = openResponse()
  const handle = await createStreamHandler(callbacks)(response)
  breakOff()
  await handle.finished
  assert.deepEqual(calls, [['error', 'The connection broke off.', undefined]])
})

test('after an error the page is given what the server’s history says', async (t) => {
  const stored = [{ id: '1', role: 'user', content: 'hi', status: 'complete', stream_id: A }]
  const fetch = t.mock.method(globalThis, 'fetch', async () =>
    Response.json({ session_id: 's 1', messages: stored, active_stream: null }),
  )
  const stream = new FakeStream(A, 1)
  const response = body([stream.thinking(), stream.error()])
  Object.defineProperty(response, 'url', { value: 'http://host:1/api/chat' })
  const seen = []
  await read(response, { sessionId: 's 1', onRehydrate: (messages) => seen.push(messages) })
  assert.deepEqual(seen, [stored])
  assert.equal(String(fetch.mock.calls[0].arguments[0]), 'http://host:1/api/sessions/s%201/messages')
})

test('without an error nothing is rehydrated, and a history out of reach is no second error', async (t) => {
  const fetch = t.mock.method(globalThis, 'fetch', async () => {
    throw new TypeError('fetch failed')
  })
  const onRehydrate = () => assert.fail('nothing to rehydrate with')
  await read(body(new FakeStream(A, 1).answer('x')), { sessionId: 's', onRehydrate })
  assert.equal(fetch.mock.callCount(), 0)
  const stream = new FakeStream(A, 1)
  const response = body([stream.thinking(), stream.error('agent_error', 'Sorry.')])
  Object.defineProperty(response, 'url', { value: 'http://host:1/api/chat' })
  const calls = await read(response, { sessionId: 's', onRehydrate })
  assert.deepEqual(calls.at(-1), ['error', 'Sorry.', A])
})
