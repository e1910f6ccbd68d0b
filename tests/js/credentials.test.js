import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Credentials } from '../../static/js/credentials.js'

/**
 * A server that accepts one token.
 *
 * @param {{accepted: string, seen?: string[]}} server
 * @returns {typeof globalThis.fetch}
 */
const accepting = (server) => async (_url, init) => {
  const token = new Headers(init?.headers).get('Authorization')?.slice('Bearer '.length) ?? ''
  server.seen?.push(token)
  return new Response(null, { status: token === server.accepted ? 200 : 401 })
}

test('a function gives the first token, and the next one when the server rejects it', async () => {
  const server = { accepted: 'one', seen: /** @type {string[]} */ ([]) }
  const tokens = ['one', 'two']
  const { fetch } = new Credentials(async () => String(tokens.shift()), accepting(server))
  assert.equal((await fetch('/a')).status, 200)
  server.accepted = 'two'
  const both = await Promise.all([fetch('/b'), fetch('/c')])
  assert.deepEqual(both.map(({ status }) => status), [200, 200])
  assert.deepEqual(server.seen, ['one', 'one', 'one', 'two', 'two'])
  assert.equal(tokens.length, 0)
})

test('a token that stays the same is not sent a second time', async () => {
  const server = { accepted: 'other', seen: /** @type {string[]} */ ([]) }
  const { fetch } = new Credentials(() => 'one', accepting(server))
  assert.equal((await fetch('/')).status, 401)
  assert.deepEqual(server.seen, ['one'])
})

test('a fixed token is sent as it is', async () => {
  const server = { accepted: 'one', seen: /** @type {string[]} */ ([]) }
  const credentials = new Credentials('one', accepting(server))
  assert.equal(credentials.isRenewable, false)
  assert.equal((await credentials.fetch('/', { headers: { Accept: 'text/html' } })).status, 200)
})

test('a function that throws leaves the current token in use', async () => {
  const server = { accepted: 'one' }
  let fails = false
  const token = async () => {
    if (fails) throw new Error('the identity provider is away')
    return 'one'
  }
  const credentials = new Credentials(token, accepting(server))
  await credentials.renew()
  fails = true
  await assert.rejects(credentials.renew(), { message: 'the identity provider is away' })
  assert.equal((await credentials.fetch('/')).status, 200)
})

test('a token that never comes fails the request, and the function is called again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const answers = [new Promise(() => {}), 'one']
  const token = () => /** @type {string | Promise<string>} */ (answers.shift())
  const { fetch } = new Credentials(token, accepting({ accepted: 'one' }))
  const late = assert.rejects(fetch('/'), { message: 'no token came within 10000 ms' })
  t.mock.timers.tick(10_000)
  await late
  assert.equal((await fetch('/')).status, 200)
})
