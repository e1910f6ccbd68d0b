import assert from 'node:assert/strict'
import { test } from 'node:test'

import { HttpTransport } from '../../static/js/transport-http.js'
import { FakeStream, TRACE, fakeFetch, openResponse, refusal, settle, toLines } from './fakes.js'

const A = 'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa'
const request = { prompt: 'hi', session_id: 's', stream_id: A }

function setUp(answer) {
  const fetch = fakeFetch(answer)
  const transport = new HttpTransport({ base: 'http://host:1/page', fetch })
  return { transport, fetch }
}

function collect(transport) {
  const frames = []
  const reading = transport.start(request, (frame) => (frames.push(frame), 'next'))
  return { frames, ...reading }
}

test('an answer is posted for and read to its last frame', async () => {
  const answer = new FakeStream(A, 1).answer('a', 'b')
  const { transport, fetch } = setUp(() => new Response(toLines(answer)))
  const { frames, closed } = collect(transport)
  await closed
  assert.deepEqual(frames, answer)
  const [{ path, init }] = fetch.calls
  assert.equal(path, '/api/chat')
  assert.deepEqual([init.method, JSON.parse(init.body)], ['POST', request])
  assert.equal(init.headers['Content-Type'], 'application/json')
})

test('it is accepted when the headers are there, and closed after the last frame', async () => {
  const { response, write } = openResponse()
  const { transport } = setUp(() => response)
  const { accepted, closed, frames } = collect(transport)
  await accepted
  assert.equal(frames.length, 0)
  write(...new FakeStream(A, 1).answer('a'))
  await closed // though the body stays open
})

test('a resume asks for what comes after the cursor', async () => {
  const { transport, fetch } = setUp(() => new Response(toLines([new FakeStream(A, 1).done()])))
  await transport.resume(A, 17, () => 'next').closed
  assert.equal(fetch.calls[0].path, `/api/streams/${A}?after=17`)
})

test('a stop is a call of its own', async () => {
  const report = { stream_id: A, cancelled: true, clean: true, cleanup_ms: 3 }
  const { transport, fetch } = setUp(() => Response.json(report))
  assert.deepEqual(await transport.cancel(A), report)
  assert.equal(fetch.calls[0].path, `/api/streams/${A}/cancel`)
  assert.equal(fetch.calls[0].init.method, 'POST')
})

test('a refusal has the server’s code and sentence', async () => {
  const { transport } = setUp(() => refusal(429, 'too_many', 'Slow down.'))
  const { accepted, closed } = collect(transport)
  await assert.rejects(closed, { name: 'Refused', code: 'too_many', message: 'Slow down.' })
  await accepted
})

test('a refusal by something in between, which speaks no JSON, is still one', async () => {
  const { transport } = setUp(() => new Response('<h1>Go away</h1>', { status: 403 }))
  await assert.rejects(collect(transport).closed, {
    name: 'Refused',
    message: 'The server answered 403.',
    status: 403,
    retryable: false,
  })
})

test('a gateway that cannot reach the server is a ConnectionLost', async () => {
  const { transport } = setUp(() => new Response('<h1>Bad Gateway</h1>', { status: 502 }))
  await assert.rejects(collect(transport).closed, { name: 'ConnectionLost' })
  await assert.rejects(transport.probe(), { name: 'ConnectionLost' })
})

test('a refusal says after how many seconds to ask again, and under which trace it is logged', async () => {
  const headers = { 'Retry-After': '7', 'X-Trace-Id': TRACE }
  const answer = () => Response.json({ code: 'unavailable', error: 'Later.' }, { status: 503, headers })
  await assert.rejects(collect(setUp(answer).transport).closed, {
    name: 'Refused',
    code: 'unavailable',
    message: 'Later.',
    ...{ status: 503, retry_after: 7, traceId: TRACE, retryable: true },
  })
})

for (const [what, answer] of [
  ['cannot be reached', () => Promise.reject(new TypeError('fetch failed'))],
  [
    'ends before the answer does',
    () => new Response(toLines(new FakeStream(A, 1).answer('a').slice(0, 2))),
  ],
]) {
  test(`a server that ${what} is a ConnectionLost`, async () => {
    const { transport } = setUp(answer)
    await assert.rejects(collect(transport).closed, { name: 'ConnectionLost' })
  })
}

test('a body that breaks off is a ConnectionLost', async () => {
  const { response, write, breakOff } = openResponse()
  const { transport } = setUp(() => response)
  const { closed, frames } = collect(transport)
  write(new FakeStream(A, 1).thinking())
  await settle()
  breakOff()
  await assert.rejects(closed, { name: 'ConnectionLost' })
  assert.equal(frames.length, 1)
})

test('who leaves has aborted the request, and hears nothing more', async () => {
  const { response, write } = openResponse()
  const { transport, fetch } = setUp(() => response)
  const { closed, leave, frames } = collect(transport)
  const stream = new FakeStream(A, 1)
  write(stream.thinking())
  await settle()
  leave()
  write(stream.token('late'), stream.done())
  await closed
  assert.equal(fetch.calls[0].init.signal.aborted, true)
  assert.equal(frames.length, 1)
})
