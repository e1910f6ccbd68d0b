import { ChatClient } from '../index.js'
import { Address } from './address.js'
import { offerCommands } from './commands.js'
import { Composer } from './composer.js'
import { ConnectionView } from './connection-view.js'
import { ConversationView } from './conversation-view.js'
import { EmptyView } from './empty-view.js'
import { isOpen } from './message-view.js'
import { noteOf } from './notes.js'
import { bindPreference, createPreferences } from './preferences.js'
import { Sidebar } from './sidebar.js'
import { SignIn } from './sign-in.js'
import { Speaker } from './speech.js'
import { applyTheme } from './theme.js'

/** @typedef {import('../message.js').Message} Message */

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

const NAME = document.title
const address = new Address()
const client = new ChatClient({ session_id: address.session })
const preferences = createPreferences()
const speaker = new Speaker(part('spoken'), part('alarm'))
const empty = new EmptyView(send)
const composer = new Composer({ onSend: send, onStop: () => void client.stop() })
const conversation = new ConversationView({
  onWithdraw: (stream_id) => void client.stop(stream_id),
  onRetry: (stream_id) => void client.retry(stream_id),
  onRegenerate: (stream_id) => void client.regenerate(stream_id),
  onEdit: (stream_id, prompt) => {
    conversation.follow()
    client.edit(stream_id, prompt)
  },
  onOlder: () => void client.loadOlder(),
  onLeave: () => composer.focus(),
})

/** @param {string} prompt */
function send(prompt) {
  const { session_id } = client.getSnapshot()
  address.name(session_id)
  composer.begin(session_id)
  conversation.follow()
  composer.focus()
  client.send(prompt, { on_conflict: preferences.whenBusy.value })
}

/** Lets the reader change the last message; `false`: there is none that could be. */
function editLast() {
  const { messages } = client.getSnapshot()
  const last = messages.findLast(({ role }) => role === 'user')
  const answer = messages.at(-1)
  if (!last || answer?.position) return false
  conversation.edit(last.id)
  return true
}

/**
 * Shows another conversation.
 *
 * @param {string} [session_id] none: a new one
 */
function show(session_id) {
  if (session_id !== undefined && session_id === client.getSnapshot().session_id) return
  address.push(session_id)
  open(session_id)
}

/** @param {string} [session_id] */
function open(session_id) {
  client.open(session_id)
  conversation.clear()
  speaker.clear()
  paint()
  composer.focus()
}

address.subscribe((session_id) => {
  const shown = client.getSnapshot()
  const isNew = shown.messages.length === 0 && !shown.loading
  const isShown = session_id ? session_id === shown.session_id : isNew
  if (!isShown) open(session_id)
})

let shownTitle = ''
/**
 * @param {string} session_id
 * @param {readonly Message[]} messages
 */
function paintTitle(session_id, messages) {
  const listed = client.sessions.getSnapshot().sessions.find((one) => one.session_id === session_id)
  const asked = messages.find(({ role }) => role === 'user')?.content
  const title = listed?.title || asked?.split('\n', 1)[0].slice(0, 80) || 'New chat'
  if (title === shownTitle) return
  shownTitle = title
  part('title').textContent = title
  document.title = messages.length > 0 ? `${title} · ${NAME}` : NAME
}

function paint() {
  const snapshot = client.getSnapshot()
  const { session_id, messages, loading, hasOlder, loadingOlder } = snapshot
  conversation.show(messages, hasOlder && !loadingOlder)
  composer.show({ ...snapshot, session_id: address.session ?? '' })
  empty.show(messages.length === 0 && !loading)
  paintTitle(session_id, messages)
  for (const message of messages) if (isOpen(message)) speaker.hear(message)
}

let painting = 0
/** However much changes, the page is painted once per animation frame. */
function paintSoon() {
  painting ||= requestAnimationFrame(() => {
    painting = 0
    paint()
  })
}

const signIn = new SignIn()
let introduced = false
/**
 * Asks who answers here, and who we are to them, as soon as there is somebody to ask. A sign-in may
 * expire, and then a connection ends: so where there is one, it is asked for anew with each.
 */
async function introduce() {
  const { connection } = client.getSnapshot()
  if (introduced || (connection !== 'websocket' && connection !== 'http')) return
  introduced = true
  try {
    const info = await client.info()
    empty.introduce(info)
    composer.setLimit(info.limits?.max_prompt_chars ?? Infinity)
    signIn.check(info)
    introduced = info.auth === 'none' || info.auth === undefined
  } catch {
    introduced = false // when the connection changes it is tried again
  }
}

client.subscribe(paintSoon)
client.sessions.subscribe(paintSoon)
client.on('connection', introduce)
client.on('ended', ({ message }) => speaker.end(message, noteOf(message) ?? 'Answer finished'))
new ConnectionView(client, {
  words: part('connection'),
  trouble: part('trouble'),
  text: part('trouble-text'),
  retry: part('reconnect'),
  spoken: part('connection-spoken'),
})
const sidebar = new Sidebar(client, {
  show,
  forget: (session_id) => void (session_id === address.session && show()),
  address: (session_id) => address.hrefOf(session_id),
  behind: [/** @type {HTMLElement} */ (document.querySelector('.chat'))],
})
offerCommands(client, { sidebar, preferences, editLast })
applyTheme(preferences.theme)
bindPreference(/** @type {HTMLSelectElement} */ (part('when-busy')), preferences.whenBusy)
paint()
client.connect()
