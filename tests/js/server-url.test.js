import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ChatClient, getInfo } from '../../static/js/index.js'
import { serverOf, serverUrl } from '../../static/js/server-url.js'

const own = (/** @type {string} */ module, page = 'https://host/app/page') =>
  serverOf(module, page)?.href

test('a library loaded below a path prefix belongs to the server there', () => {
  assert.equal(own('https://host/static/js/server-url.js'), 'https://host/')
  assert.equal(own('https://host/a/chat/static/js/server-url.js'), 'https://host/a/chat/')
})

test("a bundler's copy, a file or another host's library names no server", () => {
  assert.equal(own('https://host/@fs/home/me/static/js/server-url.js'), undefined)
  assert.equal(own('https://host/static/js/index-4f2a.js'), undefined)
  assert.equal(own('file:///home/me/static/js/server-url.js'), undefined)
  assert.equal(own('https://other/static/js/server-url.js'), undefined)
})

test('paths are below the base, with its path prefix', () => {
  assert.equal(serverUrl('api/info', 'https://host/chat/').href, 'https://host/chat/api/info')
  assert.equal(serverUrl('ws', new URL('http://host:1')).href, 'http://host:1/ws')
})

test('every request of a client goes below the prefix', async () => {
  /** @type {string[]} */
  const urls = []
  const fetch = async (/** @type {any} */ url) => {
    urls.push(String(url))
    return Response.json({ sessions: [], next: null, messages: [], active_stream: null })
  }
  /** @type {any} */
  class Blocked {
    /** @param {URL} url */
    constructor(url) {
      urls.push(String(url))
      throw new Error('blocked')
    }
  }
  const client = new ChatClient({ base: 'https://host/chat/', fetch, WebSocket: Blocked })
  await client.connect()
  await client.sessions.load()
  await client.info()
  await client.open('one')
  client.close()
  assert.equal(client.sessions.exportUrl('one', 'md'), 'https://host/chat/api/sessions/one/export.md')
  assert.ok(urls.includes('wss://host/chat/ws') && urls.length >= 5, String(urls))
  for (const url of urls) assert.match(url, /^(https|wss):\/\/host\/chat\/(api\/|ws$|livez$)/)
})

test('outside a browser, a client without a base says what is missing', async () => {
  assert.throws(() => new ChatClient(), { name: 'TypeError', message: /pass `base`/ })
  await assert.rejects(getInfo(), { name: 'TypeError', message: /pass `base`/ })
})
