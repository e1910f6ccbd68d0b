/** Stand-ins for the server, scripted by the tests. */
import { deferred } from '../../static/js/reading.js'

export const TRACE = '0af7651916cd43dd8448eb211c80319c'

/** A stream as its server numbers it: every call makes its next frame. */
export class FakeStream {
  #seq = 0

  constructor(stream_id, epoch) {
    this.ids = { stream_id, trace_id: TRACE, epoch }
  }

  frame(fields) {
    return { ...this.ids, seq: ++this.#seq, ...fields }
  }

  thinking() {
    return this.frame({ type: 'status', status: 'thinking', session_id: 's', protocol: 1 })
  }

  queued(position) {
    return this.frame({ type: 'status', status: 'queued', position })
  }

  /** Its turn has come: what it says from now on carries an epoch of its own. */
  call(epoch) {
    this.ids = { ...this.ids, epoch }
  }

  token(text) {
    return this.frame({ type: 'token', text })
  }

  done(finish_reason = 'stop') {
    return this.frame({ type: 'done', finish_reason })
  }

  error(code = 'agent_error', error = 'The agent failed.') {
    return this.frame({ type: 'error', code, error, retryable: true })
  }

  /** A whole answer. */
  answer(...texts) {
    return [this.thinking(), ...texts.map((text) => this.token(text)), this.done()]
  }
}

export const toLines = (frames) => frames.map((frame) => JSON.stringify(frame) + '\n').join('')

/** Lets everything that is ready happen. */
export const settle = () => new Promise((resolve) => setImmediate(resolve))

/** A transport whose server is the test: it sees the calls and says what comes of them. */
export class FakeTransport {
  readings = []
  cancels = []

  start(request, onFrame) {
    return this.#reading({ request, stream_id: request.stream_id }, onFrame)
  }

  resume(stream_id, after, onFrame) {
    return this.#reading({ stream_id, after }, onFrame)
  }

  cancel(stream_id) {
    const cancel = { stream_id, ...deferred() }
    this.cancels.push(cancel)
    return cancel.promise
  }

  watch(session_id, onStream) {
    this.watched = session_id
    this.announce = onStream
  }

  unwatched = []

  unwatch(session_id) {
    this.unwatched.push(session_id)
  }

  close() {}

  #reading(call, onFrame) {
    const accepted = deferred()
    const closed = deferred()
    const reading = {
      ...call,
      left: false,
      accept: accepted.resolve,
      // Late frames are delivered even after leave(): the store must not rely on it.
      deliver: (...frames) => frames.map(onFrame),
      end: closed.resolve,
      fail: closed.reject,
    }
    this.readings.push(reading)
    const leave = () => {
      reading.left = true
      closed.resolve()
    }
    return { accepted: accepted.promise, closed: closed.promise, leave }
  }
}

/** The same, looking after a connection that is as the test says. */
export class FakeConnection extends FakeTransport {
  state = 'connecting'
  retry_at = null
  wakes = 0
  checks = 0
  #listeners = new Set()

  become(state, retry_at = null) {
    Object.assign(this, { state, retry_at })
    for (const listener of this.#listeners) listener()
  }

  subscribe(listener) {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async connect() {}

  wake() {
    this.wakes += 1
  }

  check() {
    this.checks += 1
  }
}

/** A tab: what the library hears of it. */
export class FakeWindow extends EventTarget {
  document = Object.assign(new EventTarget(), { hidden: false })
}

/** A question and its answer, as the server's history has them. */
export function stored(stream_id, question, status, content) {
  const common = { stream_id, created_at: '2026-01-02T03:04:05+00:00' }
  return [
    { id: `${stream_id}:user`, role: 'user', status: 'complete', content: question, ...common },
    { id: `${stream_id}:assistant`, role: 'assistant', status, content, ...common },
  ]
}

/** A `WebSocket` whose server is the test. */
export function fakeWebSocket() {
  class FakeWebSocket {
    static sockets = []
    readyState = 0
    sent = []

    constructor(url, protocol) {
      this.url = String(url)
      this.protocol = protocol
      FakeWebSocket.sockets.push(this)
      FakeWebSocket.onCreate?.(this)
    }

    send(text) {
      if (this.readyState !== 1) throw new Error('InvalidStateError')
      this.sent.push(JSON.parse(text))
      FakeWebSocket.onSend?.(this, this.sent.at(-1))
    }

    open() {
      this.readyState = 1
      this.onopen?.({})
    }

    /** Frames, or a text as it is. */
    receive(...frames) {
      const data = typeof frames[0] === 'string' ? frames[0] : toLines(frames)
      this.onmessage?.({ data })
    }

    die() {
      this.readyState = 3
      this.onclose?.({})
    }

    close() {
      this.readyState = 2
    }
  }
  return FakeWebSocket
}

/** A WebSocket that cannot be opened. */
export function blockedWebSocket() {
  const WebSocket = fakeWebSocket()
  WebSocket.onCreate = (socket) => setImmediate(() => socket.die())
  return WebSocket
}

/** A `Response` whose body the test writes. */
export function openResponse(init = {}) {
  let controller
  const body = new ReadableStream({ start: (given) => void (controller = given) })
  const encoder = new TextEncoder()
  return {
    response: new Response(body, { status: 200, ...init }),
    write: (...frames) => controller.enqueue(encoder.encode(toLines(frames))),
    end: () => controller.close(),
    breakOff: (error = new TypeError('network error')) => controller.error(error),
  }
}

/** A `fetch` that asks the test: `answer(path, init)` gives a Response, or throws. */
export function fakeFetch(answer) {
  const fetch = async (url, init = {}) => {
    const { pathname, search } = new URL(url)
    fetch.calls.push({ path: pathname + search, init })
    return answer(pathname + search, init)
  }
  fetch.calls = []
  return fetch
}

export const refusal = (status, code, error) => Response.json({ code, error }, { status })
