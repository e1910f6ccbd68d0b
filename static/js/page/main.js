import { ChatClient } from '../index.js'
import { Address } from './address.js'
import { offerCommands } from './commands.js'
import { Composer } from './composer.js'
import { ConfirmDialog } from './confirm-dialog.js'
import { ConnectionView } from './connection-view.js'
import { ConversationView } from './conversation-view.js'
import { Drafts } from './drafts.js'
import { EmptyView } from './empty-view.js'
import { formatCount } from './format.js'
import { isOpen } from './message-view.js'
import { noteOf } from './notes.js'
import { bindPreference, createPreferences } from './preferences.js'
import { isTouch } from './prompt-field.js'
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
const drafts = new Drafts()
const composer = new Composer({ onSend: send, onStop: () => void client.stop() }, drafts)
const conversation = new ConversationView({
  onWithdraw: (stream_id) => void withdraw(stream_id),
  onRetry: (stream_id) => void client.retry(stream_id),
  onRegenerate: async (stream_id) => {
    if (await mayReplace(stream_id)) client.regenerate(stream_id)
    focusComposer()
  },
  onEdit: async (stream_id, prompt) => {
    if (!(await mayReplace(stream_id))) return conversation.editAgain(stream_id, prompt)
    conversation.follow()
    client.edit(stream_id, prompt)
    focusComposer()
  },
  onOlder: () => void client.loadOlder(),
  onLeave: focusComposer,
})

const confirm = new ConfirmDialog(/** @type {HTMLDialogElement} */ (part('confirm')))

/**
 * Asks the reader before the messages after a turn are removed.
 *
 * @param {string} stream_id of the turn that another one replaces
 */
async function mayReplace(stream_id) {
  const { messages } = client.getSnapshot()
  const last = messages.findLastIndex((one) => one.stream_id === stream_id)
  const after = messages.length - 1 - last
  if (last === -1 || after === 0) return true
  return confirm.ask({
    title: 'Remove the messages that follow?',
    text: `${formatCount(after, 'message')} after this one will be removed from the chat.`,
    yes: 'Remove',
  })
}

/** Whether the address names a conversation that the server does not have. */
function isUnknown() {
  const { messages, loading, error } = client.getSnapshot()
  return address.session !== undefined && messages.length === 0 && !loading && error === null
}

/** @param {string} prompt */
function send(prompt) {
  if (isUnknown()) show() // another person's address, or a wrong one, is not taken over
  const { session_id } = client.getSnapshot()
  address.name(session_id)
  composer.begin(session_id)
  conversation.follow()
  composer.focus()
  client.send(prompt, { on_conflict: preferences.whenBusy.value })
}

/**
 * Withdraws a message that waits for its turn, and gives its text back to the composer.
 *
 * @param {string} stream_id
 */
async function withdraw(stream_id) {
  const { session_id, messages } = client.getSnapshot()
  const question = messages.find((one) => one.stream_id === stream_id && one.role === 'user')
  await client.stop(stream_id)
  const isGone = !client.getSnapshot().messages.some((one) => one.stream_id === stream_id)
  if (question && isGone) composer.giveBack(question.content, session_id)
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
  focusComposer()
}

/** Focuses the composer where that raises no on-screen keyboard over the conversation. */
function focusComposer() {
  if (!isTouch()) composer.focus()
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
  const isOffline = snapshot.connection === 'offline'
  conversation.show(messages, hasOlder && !loadingOlder, isOffline)
  composer.show({ ...snapshot, session_id: address.session ?? '' })
  empty.show(messages.length === 0 && !loading, isUnknown())
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

const signIn = new SignIn(drafts)
/** Whether the server has been asked, and no sign-in can expire. */
let isIntroduced = false
/** @type {Promise<void> | null} */
let introducing = null
/**
 * Asks the server for its agent and for the principal that it sees: with each connection, and when
 * the page is looked at again, for a sign-in may have expired or another tab may have signed out.
 */
function introduce() {
  const { connection } = client.getSnapshot()
  if (isIntroduced || document.hidden || (connection !== 'websocket' && connection !== 'http')) return
  introducing ??= askWho().finally(() => {
    introducing = null
  })
}

async function askWho() {
  try {
    const info = await client.info()
    empty.introduce(info)
    composer.setLimit(info.limits?.max_prompt_chars ?? Infinity)
    signIn.check(info)
    isIntroduced = info.auth === 'none' || info.auth === undefined
  } catch {
    // It is tried again with the next connection.
  }
}

// The address of the page is its conversation: the link must not replace it.
part('skip').addEventListener('click', (event) => {
  event.preventDefault()
  composer.focus()
})
client.subscribe(paintSoon)
client.sessions.subscribe(paintSoon)
client.on('connection', introduce)
window.addEventListener('focus', introduce)
document.addEventListener('visibilitychange', introduce)
client.on('ended', ({ message }) => {
  speaker.end(message, noteOf(message) ?? 'Answer finished')
  if (message.error?.code === 'unauthorized') introduce()
})
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
  confirm,
  behind: [/** @type {HTMLElement} */ (document.querySelector('.chat'))],
})
offerCommands(client, { sidebar, preferences, editLast })
applyTheme(preferences.theme)
bindPreference(/** @type {HTMLSelectElement} */ (part('when-busy')), preferences.whenBusy)
paint()
focusComposer()
client.connect()
