import assert from 'node:assert/strict'
import { test } from 'node:test'

import { LineParser, parseLines, readFrames } from '../../static/js/lines.js'

const texts = ['Hello', 'Grüße', '日本語', '👩‍🚀 astronaut', 'one\u2028two\u2029three', 'a\nb\r\n"\\', '\u0085']
const frames = texts.map((text, index) => ({ type: 'token', text, seq: index + 1 }))
const bytes = new TextEncoder().encode(frames.map((frame) => JSON.stringify(frame) + '\n').join(''))

function parse(chunks, options) {
  const parser = new LineParser(options)
  const seen = chunks.flatMap((chunk) => [...parser.push(chunk)])
  return [...seen, ...parser.end()]
}

test('the whole in one chunk', () => {
  assert.deepEqual(parse([bytes]), frames)
})

test('byte by byte', () => {
  assert.deepEqual(parse(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))), frames)
})

test('cut in two at every byte, inside every character too', () => {
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(parse([bytes.subarray(0, cut), bytes.subarray(cut)]), frames, `cut at ${cut}`)
  }
})

test('a frame is yielded as soon as its line is complete', () => {
  const parser = new LineParser()
  const half = bytes.indexOf(10)
  assert.deepEqual([...parser.push(bytes.subarray(0, half))], [])
  assert.deepEqual([...parser.push(bytes.subarray(half, half + 1))], [frames[0]])
})

test('raw U+2028 and U+2029 inside a text end no line', () => {
  const line = '{"type":"token","text":"a\u2028b\u2029c\u0085d"}\n'
  assert.deepEqual(parse([line]), [{ type: 'token', text: 'a\u2028b\u2029c\u0085d' }])
})

test('empty lines are heartbeats', () => {
  assert.deepEqual(parse(['\n\n{"type":"done"}\n\r\n\n']), [{ type: 'done' }])
})

test('a last line without newline counts', () => {
  assert.deepEqual(parse(['{"type":"token"}\n{"type":', '"done"}']), [
    { type: 'token' },
    { type: 'done' },
  ])
})

test('a text message holds one or more whole lines', () => {
  assert.deepEqual([...parseLines('{"type":"a"}\n{"type":"b"}\n')], [{ type: 'a' }, { type: 'b' }])
  assert.deepEqual([...parseLines('{"type":"a"}')], [{ type: 'a' }])
})

for (const [what, text] of [
  ['broken JSON', '{"type":\n'],
  ['an array', '[]\n'],
  ['null', 'null\n'],
  ['a number', '1\n'],
  ['an object without a type', '{"text":"x"}\n'],
  ['a last line cut off', '{"type":"tok'],
]) {
  test(`${what} is a BadLine`, () => {
    assert.throws(() => parse([text]), { name: 'BadLine' })
  })
}

test('the frames before a bad line are yielded', () => {
  const seen = []
  assert.throws(
    () => {
      for (const frame of new LineParser().push('{"type":"a"}\nnonsense\n')) seen.push(frame)
    },
    { name: 'BadLine' },
  )
  assert.deepEqual(seen, [{ type: 'a' }])
})

test('bytes that are not UTF-8 are a BadLine, half a character at the end too', () => {
  assert.throws(() => parse([Uint8Array.of(0x7b, 0xff, 0x7d, 10)]), { name: 'BadLine' })
  assert.throws(() => parse([Uint8Array.of(0xe2, 0x82)]), { name: 'BadLine' })
})

test('a line has a bounded length, however it is cut', () => {
  const line = JSON.stringify({ type: 'token', text: 'x'.repeat(100) })
  assert.equal(parse([line + '\n'], { maxLine: line.length }).length, 1)
  assert.throws(() => parse([line + '\n'], { maxLine: line.length - 1 }), { name: 'BadLine' })
  assert.throws(() => parse([...line], { maxLine: 50 }), { name: 'BadLine' })
})

test('the frames of a response body come one by one', async () => {
  const seen = []
  for await (const frame of readFrames(new Response(bytes).body.getReader())) seen.push(frame)
  assert.deepEqual(seen, frames)
})

test('a body that breaks off is a ConnectionLost, after its frames', async () => {
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(bytes),
    pull: (controller) => controller.error(new TypeError('network error')),
  })
  const seen = []
  await assert.rejects(
    async () => {
      for await (const frame of readFrames(body.getReader())) seen.push(frame)
    },
    { name: 'ConnectionLost' },
  )
})
