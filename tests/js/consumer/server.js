/** What React renders without a browser; run by tests/test_types.py in a project of its own. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { createElement } from 'react'
import { renderToString } from 'react-dom/server'

import { ChatClient } from 'jarvis-stream-client'
import { ChatProvider, useChat } from 'jarvis-stream-client/react'

function Chat() {
  const { messages, isLoading, error, client } = useChat()
  assert.ok(client instanceof ChatClient)
  return JSON.stringify({ messages, isLoading, error })
}

const chat = createElement(Chat)
const empty = '{&quot;messages&quot;:[],&quot;isLoading&quot;:false,&quot;error&quot;:null}'

test('a server renders a chat in which nothing has been said, and connects to nobody', () => {
  for (const props of [null, { base: 'http://127.0.0.1:1', sessionId: 's' }]) {
    assert.equal(renderToString(createElement(ChatProvider, props, chat)), empty)
  }
})

test('and the same for a client that knows more: the browser begins with that HTML too', () => {
  const client = new ChatClient({ base: 'http://127.0.0.1:1' }) // where nobody listens
  client.send('Hello')
  assert.equal(client.getSnapshot().messages.length, 2)
  assert.equal(renderToString(createElement(ChatProvider, { client }, chat)), empty)
  client.close()
})

test('useChat says what it misses', () => {
  assert.throws(() => renderToString(chat), {
    message: 'useChat needs a <ChatProvider> above the component that calls it.',
  })
})

test('the providers of one page are apart', () => {
  const seen = new Set()
  const Look = () => void seen.add(useChat().client)
  const providers = [1, 2].map((key) => createElement(ChatProvider, { key }, createElement(Look)))
  renderToString(createElement('div', null, providers))
  assert.equal(seen.size, 2)
})
