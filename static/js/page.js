import { getInfo, getSession } from './api.js'
import { ConversationView } from './conversation-view.js'
import { currentSession, rememberSession } from './session.js'
import { ChatStore } from './store.js'
import { FallbackTransport } from './transport.js'

/** @typedef {import('./transport.js').ConnectionState} ConnectionState */

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
const notice = part('notice')
const connection = part('connection')

const session = currentSession()
const transport = new FallbackTransport()
const store = new ChatStore({ transport, session_id: session.id })
const conversation = new ConversationView(part('scroller'), part('log'))

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
  store.send(text)
})

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

async function showHistory() {
  const stored = await getSession(session.id)
  if (store.getSnapshot().messages.length === 0) store.load(stored)
}

store.subscribe(paintSoon)
transport.subscribe(paintSoon)
window.addEventListener('online', () => transport.connect())
paintComposer()
paint()

// What cannot be had now is not worth an error: the connection's state says what is wrong.
const quiet = () => {}
transport.connect().then(() => {
  showAgent().catch(quiet)
  if (session.known) showHistory().catch(quiet)
})
