/** The examples in docs/client.md do what they say. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'

import { FakeStream, fakeFetch, settle, toLines } from './fakes.js'

const library = new URL('../../static/js/index.js', import.meta.url).href
const docs = await readFile(new URL('../../docs/client.md', import.meta.url), 'utf8')

/** A server that answers every prompt with itself, twice. */
const fetch = fakeFetch((path, { body }) => {
  if (path !== '/api/chat') return Response.json({})
  const { prompt, stream_id } = JSON.parse(body)
  return new Response(toLines(new FakeStream(stream_id, 1).answer(prompt, prompt)))
})

/** Runs a module with these globals, as a page or Node would; they stay until the test is over. */
async function run(t, code, globals) {
  const folder = await mkdtemp(join(tmpdir(), 'jarvis-docs-'))
  t.after(() => rm(folder, { recursive: true }))
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name)
    t.after(() => {
      if (before) Object.defineProperty(globalThis, name, before)
      else delete globalThis[name]
    })
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  }
  const path = join(folder, 'example.mjs')
  await writeFile(path, code.replace(/'[^']*static\/js\/index\.js'/, `'${library}'`))
  await import(pathToFileURL(path).href)
}

test('the quick start in a page', async (t) => {
  let shown = []
  const list = { replaceChildren: (...items) => (shown = items) }
  const form = Object.assign(new EventTarget(), { elements: { prompt: { value: 'hi' } }, reset() {} })
  const [, code] = /<script type="module">\n([^]*?)<\/script>/.exec(docs)
  await run(t, code, {
    document: Object.assign(new EventTarget(), {
      querySelector: (selector) => (selector === '#form' ? form : list),
      createElement: () => ({ dataset: {} }),
    }),
    location: { href: 'http://host:1/' },
    WebSocket: undefined,
    fetch,
  })
  form.dispatchEvent(new Event('submit'))
  while (shown.at(-1)?.dataset.status !== 'complete') await settle()
  assert.deepEqual(shown.map(({ textContent }) => textContent), ['user: hi', 'assistant: hihi'])
})

test('the quick start in Node', async (t) => {
  const lines = []
  const [, code] = /```js\n(import \{ ChatClient \}[^]*?)```/.exec(docs)
  await run(t, code, { console: { log: (line) => lines.push(line) }, WebSocket: undefined, fetch })
  assert.deepEqual(lines, ['HelloHello'])
})
