import assert from 'node:assert/strict'
import { mock, test } from 'node:test'

import { ConnectionView, countdown } from '../../../static/js/page/connection-view.js'

class FakeElement extends EventTarget {
  dataset = {}
  textContent = ''
  hidden = true
}

/** A client whose connection is what the test says. */
class FakeClient {
  snapshot = { connection: 'connecting', retry_at: null }
  tries = 0

  getSnapshot() {
    return this.snapshot
  }

  on(event, listener) {
    assert.equal(event, 'connection')
    this.listener = listener
  }

  connect() {
    this.tries += 1
  }

  turn(connection, retry_at = null) {
    this.snapshot = { connection, retry_at }
    this.listener()
  }
}

function setUp(t) {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] })
  t.after(() => mock.timers.reset())
  const client = new FakeClient()
  const names = ['words', 'trouble', 'text', 'retry', 'spoken']
  const elements = Object.fromEntries(names.map((name) => [name, new FakeElement()]))
  new ConnectionView(client, elements)
  return { client, ...elements }
}

test('the words and the state are there at once', (t) => {
  const { client, words, trouble } = setUp(t)
  assert.equal(words.textContent, 'Connecting …')
  client.turn('http')
  assert.equal(words.textContent, 'Live over HTTP')
  assert.equal(words.dataset.state, 'http')
  assert.equal(trouble.hidden, true)
})

test('a trouble that is over within a second is not spoken of', (t) => {
  const { client, spoken } = setUp(t)
  client.turn('websocket')
  mock.timers.tick(5000)
  client.turn('reconnecting')
  mock.timers.tick(999)
  client.turn('websocket')
  mock.timers.tick(5000)
  assert.equal(spoken.textContent, '')
})

test('a trouble that lasts is spoken of, and so is its end', (t) => {
  const { client, spoken } = setUp(t)
  client.turn('reconnecting')
  mock.timers.tick(1000)
  assert.match(spoken.textContent, /connection is lost/)
  client.turn('websocket')
  mock.timers.tick(1000)
  assert.equal(spoken.textContent, 'Live over WebSocket again.')
})

test('out of reach, the seconds to the next try are seen and not spoken', (t) => {
  const { client, trouble, text, spoken, retry } = setUp(t)
  client.turn('offline', Date.now() + 3000)
  assert.equal(trouble.hidden, false)
  assert.match(text.textContent, /Next try in 3 s\.$/)
  mock.timers.tick(1250)
  assert.match(text.textContent, /Next try in 2 s\.$/)
  assert.doesNotMatch(spoken.textContent, /\d/)
  retry.dispatchEvent(new Event('click'))
  assert.equal(client.tries, 1)
  client.turn('websocket')
  assert.equal(trouble.hidden, true)
})

test('what is not known is not counted', () => {
  assert.equal(countdown(null, 0), '')
  assert.equal(countdown(1000, 1000), '')
  assert.equal(countdown(1001, 1000), 'Next try in 1 s.')
})
