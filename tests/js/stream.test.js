import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
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

test('frames that name no stream are of the one in the header', async () => {
  const text = '{"type":"token","text":"a"}\n{"type":"done","finish_reason":"stop"}\n'
  assert.deepEqual(await read(new Response(text, { headers: { 'X-Stream-Id': A } })), [
    ['status', 'thinking', A],
    ['delta', 'a', A],
    ['status', 'complete', A],
    ['done', A, 'stop'],
  ])
})

test('the header says whose frames count, even if another’s come first', async () => {
  const frames = [new FakeStream(B, 2).thinking(), ...new FakeStream(A, 1).answer('a')]
  const calls = await read(body(frames, { headers: { 'X-Stream-Id': A } }))
  assert.deepEqual(calls.map(([kind, text, id]) => [kind, kind === 'done' ? text : id]), [
    ['status', A],
    ['delta', A],
    ['status', A],
    ['done', A],
  ])
})

test('what the agent does is told, and thinking is not told again', async () => {
  const stream = new FakeStream(A, 1)
  const tool = () => stream.frame({ type: 'status', status: 'tool', name: 'search' })
  const again = () => stream.frame({ type: 'status', status: 'thinking' })
  const calls = await read(
    body([stream.queued(1), stream.thinking(), tool(), again(), stream.token('a'), stream.done()]),
  )
  assert.deepEqual(
    calls.filter(([kind]) => kind === 'status').map(([, status]) => status),
    ['thinking', 'queued', 'tool', 'complete'],
  )
})

test('a type of frame that it does not know is passed over', async () => {
  const stream = new FakeStream(A, 1)
  const frames = [stream.token('a'), stream.frame({ type: 'picture' }), stream.token('b'), stream.done()]
  const calls = await read(body(frames))
  assert.deepEqual(calls.filter(([kind]) => kind === 'delta').map(([, text]) => text), ['a', 'b'])
  assert.deepEqual(calls.at(-1), ['done', A, 'stop'])
})

test('a last line without newline counts: a piece, after which the answer is missing its end', async () => {
  const text = toLines([new FakeStream(A, 1).token('x')]).trimEnd()
  assert.deepEqual(await read(new Response(text)), [
    ['status', 'thinking', A],
    ['delta', 'x', A],
    ['error', 'The response ended before the answer did.', A],
  ])
})

test('a last line without newline that is cut in a character is an error', async () => {
  const bytes = new TextEncoder().encode('{"type":"token","text":"é')
  const calls = await read(new Response(bytes.slice(0, -1)))
  assert.deepEqual(calls, [['error', 'The server sent bytes that are not UTF-8.', undefined]])
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

test('a refusal is an error with the server’s sentence', async () => {
  const refusal = { code: 'conflict', error: 'This session is busy.' }
  assert.deepEqual(await read(Response.json(refusal, { status: 409 })), [
    ['error', 'This session is busy.', undefined],
  ])
  assert.deepEqual(await read(new Response('<h1>Oops</h1>', { status: 500 })), [
    ['error', 'The server answered 500.', undefined],
  ])
  assert.deepEqual(await read(new Response(null, { status: 500 })), [
    ['error', 'The server answered 500.', undefined],
  ])
})

for (const [name, when] of [
  ['onDelta', 'delta'],
  ['onDone', 'done'],
  ['onError', 'error'],
]) {
  test(`what ${name} throws is no error of the stream, and ends the reading`, async () => {
    const { calls, callbacks } = recorder()
    const mine = new Error('a bug in the page')
    const throwing = () => {
      throw mine
    }
    const stream = new FakeStream(A, 1)
    const end = name === 'onError' ? () => stream.error() : () => stream.done()
    const { response, write } = openResponse()
    const handle = await createStreamHandler({ ...callbacks, [name]: throwing })(response)
    write(stream.thinking(), stream.token('a'), stream.token('b'), end())
    await assert.rejects(handle.finished, mine)
    assert.ok(!calls.some(([kind]) => kind === 'error' || kind === when))
  })
}

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

test('an aborted fetch is silent, with a real one', async () => {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'X-Stream-Id': A })
    response.write(toLines([new FakeStream(A, 1).thinking()]))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { calls, callbacks } = recorder()
  const controller = new AbortController()
  const url = `http://127.0.0.1:${server.address().port}/`
  const response = await fetch(url, { signal: controller.signal })
  const onRehydrate = () => assert.fail('an abort is no error')
  const handle = await createStreamHandler({ ...callbacks, sessionId: 's', onRehydrate })(response)
  controller.abort()
  await handle.finished
  server.closeAllConnections()
  server.close()
  assert.deepEqual(calls, [['status', 'thinking', A]])
})

test('an abort after the end changes nothing', async () => {
  const { calls, callbacks } = recorder()
  const handle = await createStreamHandler(callbacks)(body(new FakeStream(A, 1).answer('x')))
  await handle.finished
  handle.abort()
  await settle()
  assert.deepEqual(calls.at(-1), ['done', A, 'stop'])
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
