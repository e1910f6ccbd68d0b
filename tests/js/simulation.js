/** A server and a network that do what the dice say: the whole wire, in one process. */
import { TRACE } from './fakes.js'

/** Numbers from 0 to 1 that a seed determines (mulberry32). */
export function dice(seed) {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    next,
    chance: (probability) => next() < probability,
    below: (count) => Math.floor(next() * count),
    one: (choices) => choices[Math.floor(next() * choices.length)],
  }
}

/** What the server knows: sessions, their turns, and the streams with all their frames. */
export class SimulatedServer {
  sessions = new Map()
  streams = new Map()
  #epoch = 100
  #buried = new Set()

  /** @param rolls whether to refuse a message is left to them */
  constructor(rolls) {
    this.rolls = rolls
  }

  session(id) {
    const empty = { id, turns: [], live: null, queue: [], watchers: new Set() }
    if (!this.sessions.has(id)) this.sessions.set(id, empty)
    return this.sessions.get(id)
  }

  start({ stream_id, session_id, prompt, on_conflict, replaces }) {
    const known = this.streams.get(stream_id)
    if (known) return known
    if (this.rolls.chance(0.05)) throw { status: 429, code: 'too_many', error: 'Slow down.' }
    const session = this.session(session_id)
    if (replaces !== undefined) {
      const index = session.turns.findIndex((turn) => turn.stream_id === replaces)
      if (index === -1) throw { status: 404, code: 'not_found', error: 'No such turn.' }
      session.turns.splice(index)
    }
    const stream = { stream_id, session, prompt, log: [], followers: new Set(), text: '', status: null }
    this.streams.set(stream_id, stream)
    session.turns.push(stream)
    const first = { type: 'status', status: 'thinking', session_id, role: 'assistant', protocol: 1 }
    if (replaces !== undefined) first.replaces = replaces
    const waits = on_conflict === 'enqueue' && (session.live || session.queue.length > 0)
    stream.epoch = waits ? (session.live ?? session.queue[0]).epoch : ++this.#epoch
    if (waits) session.queue.push(stream)
    const interrupted = waits ? [] : [...session.queue.splice(0).reverse(), session.live]
    if (!waits) session.live = stream
    for (const other of interrupted) if (other) this.end(other, 'superseded', stream_id)
    this.#append(stream, first)
    if (waits) this.#append(stream, { type: 'status', status: 'queued', position: session.queue.length })
    for (const watcher of session.watchers) watcher(stream)
    if (this.#buried.has(stream_id)) this.end(stream, 'cancelled')
    return stream
  }

  cancel(stream_id) {
    const stream = this.streams.get(stream_id)
    if (!stream) {
      this.#buried.add(stream_id)
      throw { status: 404, code: 'not_found', error: 'No such stream.' }
    }
    const cancelled = stream.status === null
    if (cancelled) this.end(stream, 'cancelled')
    return { stream_id, cancelled, clean: true, cleanup_ms: 0 }
  }

  messages(session_id) {
    const session = this.session(session_id)
    if (session.turns.length === 0) throw { status: 404, code: 'not_found', error: 'No such session.' }
    const { live } = session
    return {
      session_id,
      messages: session.turns.flatMap(({ stream_id, prompt, text, status }) => [
        { stream_id, role: 'user', status: 'complete', content: prompt },
        { stream_id, role: 'assistant', status: status ?? 'streaming', content: text },
      ]),
      active_stream: live && { stream_id: live.stream_id, epoch: live.epoch, seq: live.log.length },
    }
  }

  /** The agents say something, or come to their end. */
  advance() {
    const live = [...this.sessions.values()].map((session) => session.live).filter(Boolean)
    if (live.length === 0) return
    const stream = this.rolls.one(live)
    if (this.rolls.chance(0.12)) return this.end(stream, 'stop')
    if (this.rolls.chance(0.1)) this.#append(stream, { type: 'status', status: 'tool', name: 'clock' })
    const text = `${stream.stream_id.slice(0, 4)}.${stream.log.length} `
    stream.text += text
    this.#append(stream, { type: 'token', text })
  }

  end(stream, finish_reason, superseded_by) {
    if (stream.status !== null) return
    const { session } = stream
    stream.status = finish_reason === 'stop' ? 'complete' : finish_reason
    session.queue = session.queue.filter((other) => other !== stream)
    const ending = { type: 'done', finish_reason }
    if (superseded_by) ending.superseded_by = superseded_by
    this.#append(stream, ending)
    if (session.live !== stream) return
    session.live = session.queue.shift() ?? null
    if (session.live) session.live.epoch = ++this.#epoch
  }

  #append(stream, fields) {
    const { stream_id, epoch } = stream
    const frame = { ...fields, stream_id, trace_id: TRACE, epoch, seq: stream.log.length + 1 }
    stream.log.push(frame)
    for (const follow of [...stream.followers]) follow(frame)
  }
}

/** The wires between the server and one tab. */
export class SimulatedNetwork {
  /** Whether frames are doubled, reordered and dropped, and connections cut. */
  isWild = true
  #connections = new Set()

  constructor(server, rolls) {
    this.server = server
    this.rolls = rolls
    this.WebSocket = this.#socketClass()
  }

  /** Something arrives, or breaks; whether there was anything to do. */
  step() {
    const busy = [...this.#connections].filter(({ inbox, outbox }) => inbox.length + outbox.length > 0)
    if (this.isWild && this.#connections.size > 0 && this.rolls.chance(0.04)) {
      this.rolls.one([...this.#connections]).cut()
      return true
    }
    if (busy.length === 0) return false
    const connection = this.rolls.one(busy)
    const { inbox, outbox } = connection
    if (inbox.length > 0 && (outbox.length === 0 || this.rolls.chance(0.5))) {
      inbox.shift()()
    } else {
      const count = 1 + this.rolls.below(4)
      connection.deliver(this.#spoilt(outbox.splice(0, count)))
    }
    return true
  }

  /** What the wire makes of frames; nothing that is last of its stream, for nothing would tell. */
  #spoilt(frames) {
    if (!this.isWild) return frames
    const isSafe = ({ type, seq }) => seq === undefined || type === 'done' || type === 'error'
    const result = frames.flatMap((frame) => {
      if (isSafe(frame)) return [frame]
      if (this.rolls.chance(0.03)) return []
      return this.rolls.chance(0.08) ? [frame, frame] : [frame]
    })
    const at = this.rolls.below(result.length)
    const [one, other] = result.slice(at, at + 2)
    if (one && other && !isSafe(one) && !isSafe(other) && this.rolls.chance(0.2)) {
      result.splice(at, 2, other, one)
    }
    return result
  }

  /** One connection: what it has still to bring to the server, and from there. */
  #connect({ deliver, cut }) {
    const follows = new Map()
    const connection = {
      inbox: [],
      outbox: [],
      deliver,
      follow: (stream, after) => {
        const { stream_id, followers } = stream
        followers.delete(follows.get(stream_id))
        const follow = (frame) => connection.outbox.push(frame)
        follows.set(stream_id, follow)
        followers.add(follow)
        connection.outbox.push(...stream.log.slice(after))
      },
      follows,
      close: () => {
        this.#connections.delete(connection)
        // What was sent may still arrive.
        if (this.rolls.chance(0.5)) for (const bring of connection.inbox) bring()
        for (const [id, follow] of follows) this.server.streams.get(id).followers.delete(follow)
        connection.onClose?.()
      },
      cut: () => {
        connection.close()
        cut()
      },
    }
    this.#connections.add(connection)
    return connection
  }

  fetch = (url, { method = 'GET', body, signal } = {}) => {
    const { pathname, searchParams } = new URL(url)
    return new Promise((resolve, reject) => {
      let controller
      const fail = (error) => {
        reject(error)
        controller?.error(error)
        controller = null
      }
      const encoder = new TextEncoder()
      const connection = this.#connect({
        deliver: (frames) => {
          const text = frames.map((frame) => JSON.stringify(frame) + '\n').join('')
          controller?.enqueue(encoder.encode(text))
        },
        cut: () => fail(new TypeError('network error')),
      })
      signal?.addEventListener('abort', () => {
        connection.close()
        fail(signal.reason)
      })
      const json = (value, status = 200) => {
        resolve(Response.json(value, { status }))
        connection.close()
      }
      const stream = (found, after) => {
        const bytes = new ReadableStream({ start: (given) => void (controller = given) })
        resolve(new Response(bytes))
        connection.follow(found, after)
      }
      connection.inbox.push(() => {
        const [, what, id, verb] = /^\/(?:api\/)?(\w+)(?:\/([^/]+))?(?:\/(\w+))?$/.exec(pathname)
        try {
          if (what === 'livez') return json({})
          if (what === 'chat') {
            const request = JSON.parse(body)
            return stream(this.server.start(request), request.after ?? 0)
          }
          if (what === 'sessions' && verb === 'messages') return json(this.server.messages(id))
          if (what === 'streams' && method === 'POST') return json(this.server.cancel(id))
          const found = this.server.streams.get(id)
          if (!found) throw { status: 404, code: 'not_found', error: 'No such stream.' }
          return stream(found, Number(searchParams.get('after')))
        } catch (error) {
          if (error instanceof Error) throw error
          return json({ code: error.code, error: error.error }, error.status)
        }
      })
    })
  }

  #socketClass() {
    const network = this
    return class SimulatedSocket {
      readyState = 0
      #connection
      #watches = new Map()

      constructor() {
        this.#connection = network.#connect({
          deliver: (frames) => {
            const data = frames.map((frame) => JSON.stringify(frame) + '\n').join('')
            if (this.readyState === 1 && data) this.onmessage?.({ data })
          },
          cut: () => this.#die(),
        })
        this.#connection.onClose = () => this.#watches.forEach((watch, id) => this.#unwatch(id, watch))
        this.#connection.inbox.push(() => {
          if (this.readyState !== 0) return
          if (network.isWild && network.rolls.chance(0.2)) return this.#connection.cut()
          this.readyState = 1
          this.onopen?.({})
        })
      }

      send(text) {
        if (this.readyState !== 1) throw new Error('InvalidStateError')
        this.#connection.inbox.push(() => this.#obey(JSON.parse(text)))
      }

      close() {
        if (this.readyState >= 2) return
        this.readyState = 2
        this.#connection.close()
      }

      #die() {
        this.readyState = 3
        this.onclose?.({})
      }

      #unwatch(id, watch) {
        network.server.session(id).watchers.delete(watch)
        this.#watches.delete(id)
      }

      #obey(command) {
        const { server } = network
        const { outbox, follow, follows } = this.#connection
        const { type, stream_id = null, session_id, after = 0 } = command
        try {
          if (type === 'start') {
            const isNew = !server.streams.has(stream_id)
            const stream = server.start(command)
            if (!isNew || !follows.has(stream_id)) follow(stream, after)
          } else if (type === 'resume') {
            const stream = server.streams.get(stream_id)
            if (!stream) throw { code: 'not_found', error: 'No such stream.' }
            follow(stream, after)
          } else if (type === 'cancel') {
            outbox.push({ type: 'status', status: 'cancelled', ...server.cancel(stream_id) })
          } else if (type === 'watch' && !this.#watches.has(session_id)) {
            const see = (stream) => follows.has(stream.stream_id) || follow(stream, 0)
            this.#watches.set(session_id, see)
            const session = server.session(session_id)
            session.watchers.add(see)
            for (const stream of [session.live, ...session.queue]) if (stream) see(stream)
          } else if (type === 'unwatch' && this.#watches.has(session_id)) {
            this.#unwatch(session_id, this.#watches.get(session_id))
          }
        } catch (error) {
          if (error instanceof Error) throw error
          outbox.push({ type: 'error', code: error.code, error: error.error, stream_id })
        }
      }
    }
  }
}
