import assert from 'node:assert/strict'
import { test } from 'node:test'

import { deferred } from '../../static/js/reading.js'
import { SessionList } from '../../static/js/sessions.js'
import { fakeFetch, refusal, settle } from './fakes.js'

const entry = (session_id, title = session_id) => ({
  ...{ session_id, title, message_count: 2, active: false },
  ...{ created_at: '2026-01-02T03:04:05+00:00', updated_at: '2026-01-02T03:04:05+00:00' },
})

function setUp(answer) {
  const fetch = fakeFetch(answer)
  const removed = []
  const onRemoved = (id) => removed.push(id)
  const list = new SessionList({ base: 'http://host:1/page', fetch, onRemoved })
  const ids = () => list.getSnapshot().sessions.map(({ session_id }) => session_id)
  return { list, fetch, ids, removed }
}

const page = (ids, next = null) => Response.json({ sessions: ids.map((id) => entry(id)), next })

test('nothing is asked for until it is loaded', async () => {
  const { list, fetch } = setUp(() => page(['a']))
  list.touch()
  await settle()
  assert.deepEqual(fetch.calls, [])
})

test('the list comes in pages', async () => {
  const { list, fetch, ids } = setUp((path) =>
    path.includes('before=') ? page(['c', 'd']) : page(['a', 'b'], 'x y'),
  )
  const loading = list.load()
  assert.equal(list.getSnapshot().loading, true)
  await loading
  assert.deepEqual([ids(), list.getSnapshot().more], [['a', 'b'], true])
  await list.more()
  assert.deepEqual([ids(), list.getSnapshot().more], [['a', 'b', 'c', 'd'], false])
  await list.more()
  assert.deepEqual(
    fetch.calls.map(({ path }) => path),
    ['/api/sessions?limit=50', '/api/sessions?limit=50&before=x+y'],
  )
})

test('a list longer than what the server gives at a time stays as long', async () => {
  const all = Array.from({ length: 430 }, (_, number) => `s${number}`)
  const { list, fetch, ids } = setUp((path) => {
    const search = new URL(path, 'http://host').searchParams
    const first = Number(search.get('before') ?? 0)
    const last = first + Number(search.get('limit'))
    return page(all.slice(first, last), last < all.length ? String(last) : null)
  })
  await list.load()
  while (ids().length < 350) await list.more()
  fetch.calls.length = 0
  await list.load()
  assert.deepEqual(ids(), all.slice(0, 350))
  assert.deepEqual(
    fetch.calls.map(({ path }) => path),
    ['/api/sessions?limit=200', '/api/sessions?limit=150&before=200'],
  )
  await list.more()
  assert.deepEqual(ids(), all.slice(0, 400))
})

test('a search asks the server, and an outdated answer is not shown', async () => {
  const slow = deferred()
  const { list, fetch, ids } = setUp(async (path) => {
    if (path.includes('q=old')) await slow.promise
    return page([path.includes('q=old') ? 'OLD' : 'new'])
  })
  const old = list.search('old')
  await list.search(' new ')
  slow.resolve()
  await old
  assert.deepEqual([ids(), list.getSnapshot().query], [['new'], 'new'])
  assert.equal(list.getSnapshot().loading, false)
  assert.equal(fetch.calls[1].path, '/api/sessions?limit=50&q=new')
})

test('what has not changed is the same object, and frozen', async () => {
  let title = 'b'
  const { list } = setUp(() => Response.json({ sessions: [entry('a'), entry('b', title)], next: null }))
  await list.load()
  const [a, b] = list.getSnapshot().sessions
  title = 'B'
  await list.load()
  const [a2, b2] = list.getSnapshot().sessions
  assert.ok(a === a2 && b !== b2 && Object.isFrozen(b2))
})

test('changes at once are one request, and one more for what came meanwhile', async () => {
  const { list, fetch } = setUp(() => page(['a']))
  await list.load()
  list.touch()
  list.touch()
  await settle()
  assert.equal(fetch.calls.length, 2)
  list.touch()
  await Promise.resolve()
  list.touch()
  await settle()
  await settle()
  assert.equal(fetch.calls.length, 4)
})

test('a list that cannot be had says so, and keeps what is shown', async () => {
  let up = true
  const { list, ids } = setUp(() => (up ? page(['a']) : Promise.reject(new TypeError('failed'))))
  await list.load()
  up = false
  await list.load()
  assert.deepEqual(ids(), ['a'])
  assert.equal(list.getSnapshot().error, 'The server cannot be reached.')
  up = true
  await list.load()
  assert.equal(list.getSnapshot().error, null)
})

test('another title is shown at once', async () => {
  const held = deferred()
  const { list, fetch } = setUp(async (_path, { method }) => {
    if (method !== 'PATCH') return page(['a'])
    await held.promise
    return Response.json(entry('a', 'better'))
  })
  await list.load()
  const renaming = list.rename('a', 'better')
  assert.equal(list.getSnapshot().sessions[0].title, 'better')
  held.resolve()
  assert.equal(await renaming, true)
  const { path, init } = fetch.calls[1]
  assert.deepEqual([path, JSON.parse(init.body)], ['/api/sessions/a', { title: 'better' }])
})

test('a title that the server refuses is taken back', async () => {
  const { list } = setUp((_path, { method }) =>
    method === 'PATCH' ? refusal(422, 'invalid', 'title: is too long') : page(['a']),
  )
  await list.load()
  assert.equal(await list.rename('a', 'x'.repeat(999)), false)
  assert.equal(list.getSnapshot().sessions[0].title, 'a')
  assert.equal(list.getSnapshot().error, 'Could not rename it: title: is too long')
})

test('a deleted conversation goes at once; one that is gone already is deleted', async () => {
  const { list, ids, removed } = setUp((path, { method }) => {
    if (method !== 'DELETE') return page(['a', 'b', 'c'])
    return path.endsWith('/a') ? new Response(null, { status: 204 }) : refusal(404, 'not_found', 'No.')
  })
  await list.load()
  const both = Promise.all([list.remove('a'), list.remove('b')])
  assert.deepEqual(ids(), ['c'])
  assert.deepEqual(await both, [true, true])
  assert.deepEqual(removed, ['a', 'b'])
})

test('a conversation that cannot be deleted comes back where it was', async () => {
  const { list, ids, removed } = setUp((_path, { method }) =>
    method === 'DELETE' ? refusal(503, 'unavailable', 'Later.') : page(['a', 'b', 'c']),
  )
  await list.load()
  assert.equal(await list.remove('b'), false)
  assert.deepEqual([ids(), removed], [['a', 'b', 'c'], []])
  assert.equal(list.getSnapshot().error, 'Could not delete it: Later.')
})

test('a list that was asked for before a deletion does not bring it back', async () => {
  const slow = deferred()
  let lists = 0
  const { list, ids } = setUp(async (_path, { method }) => {
    if (method === 'DELETE') return new Response(null, { status: 204 })
    lists += 1
    if (lists === 1) return page(['a', 'b'])
    if (lists === 2) await slow.promise
    return page(lists === 2 ? ['a', 'b'] : ['a'])
  })
  await list.load()
  const loading = list.load()
  await list.remove('b')
  slow.resolve()
  await loading
  await settle()
  assert.deepEqual(ids(), ['a'])
})

test('where a conversation can be downloaded', () => {
  const { list } = setUp(() => page([]))
  assert.equal(list.exportUrl('a:1', 'md'), 'http://host:1/api/sessions/a%3A1/export.md')
})
