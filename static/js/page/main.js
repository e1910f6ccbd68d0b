import { getInfo } from '../api.js'
import { ConversationView } from './conversation-view.js'
import { setWhenBusy, whenBusy } from './preferences.js'
import { currentSession, rememberSession } from './address.js'
import { ChatStore } from '../store.js'
import { FallbackTransport } from '../transport.js'

/** @typedef {import('../transport.js').ConnectionState} ConnectionState */

/** @type {Record<ConnectionState, string>} */
const connectionSentences = {
  connecting: 'Connecting …',
  websocket: 'Live over WebSocket',
  http: 'Live over HTTP',
  reconnecting: 'Reconnecting …',
  offline: 'Offline: the server cannot be reached',
}

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

const form = part('form')
const prompt = /** @type {HTMLTextAreaElement} */ (part('prompt'))
const send = /** @type {HTMLButtonElement} */ (part('send'))
const stop = /** @type {HTMLButtonElement} */ (part('stop'))
const busyChoice = /** @type {HTMLSelectElement} */ (part('when-busy'))
const notice = part('notice')
const connection = part('connection')

const session = currentSession()
const transport = new FallbackTransport()
const store = new ChatStore({ transport, session_id: session.id })
const conversation = new ConversationView(part('scroller'), part('log'), {
  onWithdraw: (stream_id) => store.stop(stream_id),
})

function paint() {
  const { messages, busy, stopping, error } = store.getSnapshot()
  conversation.show(messages)
  part('empty').hidden = messages.length > 0
  stop.hidden = !busy
  stop.disabled = stopping
  stop.textContent = stopping ? 'Stopping' : 'Stop'
  notice.hidden = error === null
  notice.textContent = error
  connection.dataset.state = transport.state
  connection.textContent = connectionSentences[transport.state]
}

let painting = 0
/** However much changes, the page is painted once per animation frame. */
function paintSoon() {
  painting ||= requestAnimationFrame(() => {
    painting = 0
    paint()
  })
}

function paintComposer() {
  send.disabled = prompt.value.trim() === ''
  prompt.rows = Math.min(8, prompt.value.split('\n').length)
}

prompt.addEventListener('input', paintComposer)

prompt.addEventListener('keydown', (event) => {
  // While an input method composes, Enter chooses a word. (229: Safari says so only here.)
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return
  event.preventDefault()
  form.dispatchEvent(new SubmitEvent('submit', { cancelable: true }))
})

form.addEventListener('submit', (event) => {
  event.preventDefault()
  const text = prompt.value.trim()
  if (text === '') return
  prompt.value = ''
  paintComposer()
  prompt.focus()
  rememberSession(session.id)
  conversation.follow()
  store.send(text, { on_conflict: chosen() })
})

const chosen = () => /** @type {import('./preferences.js').WhenBusy} */ (busyChoice.value)
busyChoice.value = whenBusy()
busyChoice.addEventListener('change', () => setWhenBusy(chosen()))

stop.addEventListener('click', () => {
  prompt.focus()
  store.stop()
})

async function showAgent() {
  const { agent } = await getInfo()
  part('agent').textContent = agent.is_model ? agent.name : `${agent.name}: no language model`
  part('why').textContent = agent.is_model
    ? ''
    : 'The demo answers here. It is no language model: it plays back prepared text. ' +
      'Send /help to see what it can do.'
}

/** What cannot be had now is not worth an error: the connection's state says what is wrong. */
const quiet = () => {}

/** Asks what the server knows of this conversation, once there is one. */
async function refresh() {
  const begun = session.known || store.getSnapshot().messages.length > 0
  if (begun) await store.refresh().catch(quiet)
}

function wake() {
  if (document.hidden) return
  transport.connect().then(refresh)
}

let arrived = false
/** The server is within reach, for the first time, again, or in another way. */
async function arrive() {
  if (!arrived) {
    arrived = true
    showAgent().catch(quiet)
    await refresh() // first, so that of a long answer only the rest is sent
    store.watch()
  }
  refresh() // what came before we watched
}

store.subscribe(paintSoon)
transport.subscribe(paintSoon)
transport.subscribe(() => {
  if (transport.state === 'websocket' || transport.state === 'http') arrive()
})
window.addEventListener('online', wake)
window.addEventListener('focus', wake)
window.addEventListener('pageshow', wake)
document.addEventListener('visibilitychange', wake)
window.addEventListener('hashchange', () => window.location.reload()) // another conversation
paintComposer()
paint()
transport.connect()
