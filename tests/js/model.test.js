/**
 * The client against a simulated server, over wires that cut, double, drop and reorder: whatever the
 * dice say, no view ever shows a stale, lost or doubled piece, and in the end all show what the
 * server has.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ChatClient, FallbackTransport } from '../../static/js/index.js'
import { FakeWindow, settle } from './fakes.js'
import { SimulatedNetwork, SimulatedServer, dice } from './simulation.js'

const RUNS = Number(process.env.MODEL_RUNS ?? 40)
const STEPS = 150
const SESSIONS = ['one', 'two']

/** The server's words for the ends of an answer, in the page's. */
const endings = { complete: 'complete', cancelled: 'stopped', superseded: 'replaced' }

function openTab(server, rolls, { isSocketBlocked }) {
  const network = new SimulatedNetwork(server, rolls)
  const base = 'http://host:1/'
  const { fetch } = network
  const transport = new FallbackTransport({
    ...{ base, fetch, WebSocket: isSocketBlocked ? undefined : network.WebSocket },
    ...{ backoff: () => 0, sleep: settle },
  })
  const window = new FakeWindow()
  const client = new ChatClient({ base, fetch, transport, window, session_id: 'one' })
  const tab = { network, client, window, failure: null }
  client.subscribe(() => {
    try {
      check(server, client)
    } catch (error) {
      tab.failure ??= error // thrown here it would be the client's
    }
  })
  client.connect()
  return tab
}

/** What must hold at any moment. */
function check(server, client) {
  const { session_id, messages, busy } = client.getSnapshot()
  const answers = messages.filter(({ role }) => role === 'assistant')
  assert.equal(new Set(messages.map(({ id }) => id)).size, messages.length, 'shown twice')
  for (const { stream_id, content, status } of answers) {
    const stream = server.streams.get(stream_id)
    assert.ok(stream || content === '', 'text of an answer that never was')
    if (!stream) continue
    assert.equal(stream.session.id, session_id, 'an answer of another conversation')
    assert.ok(stream.text.startsWith(content), `"${content}" is no beginning of "${stream.text}"`)
    if (status === 'complete') assert.equal(content, stream.text, 'a complete answer lacks a piece')
  }
  const growing = answers.some(({ status }) => status === 'thinking' || status === 'streaming')
  assert.ok(busy || !growing, 'an answer is shown as growing that nobody reads')
}

/** Somebody does something in a tab. */
function act({ client, window }, rolls, count) {
  const { messages } = client.getSnapshot()
  const some = messages.length > 0 ? rolls.one(messages).stream_id : undefined
  const roll = rolls.next()
  if (roll < 0.35) client.send(`question ${count}`)
  else if (roll < 0.45) client.send(`queued ${count}`, { on_conflict: 'enqueue' })
  else if (roll < 0.5) client.send(`a ${count}`) && client.send(`b ${count}`)
  else if (roll < 0.6) client.stop()
  else if (roll < 0.65) client.stop() && client.send(`after a stop ${count}`)
  else if (roll < 0.73 && some) client.regenerate(some)
  else if (roll < 0.78 && some) client.edit(some, `edited ${count}`)
  else if (roll < 0.82 && some) client.retry(some)
  else if (roll < 0.92) client.open(rolls.one(SESSIONS))
  else if (roll < 0.96) client.refresh()
  else window.dispatchEvent(new Event('focus'))
}

/** The wires are whole again, and everything comes to its end. */
async function calmDown(server, tabs) {
  for (const { network } of tabs) network.isWild = false
  server.rolls = { ...server.rolls, chance: (probability) => probability === 0.12 }
  let quiet = 0
  for (let rounds = 0; quiet < 20; rounds++) {
    assert.ok(rounds < 20_000, 'it never comes to rest')
    const moved = tabs.map(({ network }) => network.step()).includes(true)
    server.advance()
    await settle()
    const isBusy = tabs.some(({ client }) => client.getSnapshot().busy)
    quiet = moved || isBusy ? 0 : quiet + 1
  }
}

/** A view that was brought up to date shows what the server has, in its order. */
function compare(server, client) {
  const { session_id, messages } = client.getSnapshot()
  const { turns } = server.session(session_id)
  const answers = messages.filter(({ role }) => role === 'assistant')
  const kept = new Set(turns.map(({ stream_id }) => stream_id))
  assert.deepEqual(
    answers.map(({ stream_id }) => stream_id).filter((id) => kept.has(id)),
    turns.map(({ stream_id }) => stream_id),
    'the turns of the server, in its order',
  )
  for (const { stream_id, status, content } of answers) {
    const turn = turns.find((one) => one.stream_id === stream_id)
    if (!turn) {
      assert.equal(content, '', 'text of a turn that the server does not have')
      continue
    }
    // What somebody here has stopped or replaced stands still from then on.
    if (status === 'replaced' || status === 'stopped') continue
    assert.deepEqual([status, content], [endings[turn.status], turn.text])
  }
  const questions = messages.filter(({ role, stream_id }) => role === 'user' && kept.has(stream_id))
  assert.deepEqual(questions.map(({ content }) => content), turns.map(({ prompt }) => prompt))
}

async function run(seed) {
  const rolls = dice(seed)
  const server = new SimulatedServer(rolls)
  const tabs = [
    openTab(server, rolls, { isSocketBlocked: rolls.chance(0.2) }),
    openTab(server, rolls, { isSocketBlocked: rolls.chance(0.4) }),
  ]
  try {
    for (let step = 0; step < STEPS; step++) {
      const roll = rolls.next()
      if (roll < 0.12) act(rolls.one(tabs), rolls, step)
      else if (roll < 0.35) server.advance()
      else rolls.one(tabs).network.step()
      await settle()
      for (const { failure } of tabs) if (failure) throw failure
    }
    await calmDown(server, tabs)
    for (let rounds = 0; rounds < 2; rounds++) {
      const refreshed = Promise.all(tabs.map(({ client }) => client.refresh()))
      await calmDown(server, tabs)
      await refreshed
    }
    for (const { client, failure } of tabs) {
      if (failure) throw failure
      compare(server, client)
    }
  } finally {
    for (const { client } of tabs) client.close()
  }
}

const seeds = process.env.MODEL_SEED
  ? [Number(process.env.MODEL_SEED)]
  : Array.from({ length: RUNS }, (_, index) => index + 1)

for (const seed of seeds) {
  test(`whatever happens, no piece is stale, lost or doubled (MODEL_SEED=${seed})`, () => run(seed))
}
