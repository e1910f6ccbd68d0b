'use client'

/**
 * The client in React 18 or newer. React is the page's own: nothing of it comes from here.
 *
 *     import { ChatProvider, useChat } from 'jarvis-stream-client/react'
 *
 *     <ChatProvider base="https://chat.example.org">
 *       <Chat />
 *     </ChatProvider>
 *
 *     function Chat() {
 *       const { messages, isLoading, error, sendMessage, stopStream } = useChat()
 *       …
 *     }
 */
import {
  createContext,
  createElement,
  useContext,
  useEffect,
  useMemo,
  useState,
  useSyncExternalStore,
} from 'react'

import { ChatClient } from './client.js'

/** @typedef {import('react').ReactNode} ReactNode */
/** @typedef {import('./message.js').Message} Message */
/** @typedef {import('./store.js').SendOptions} SendOptions */

/**
 * What `useChat` gives.
 *
 * @typedef {object} Chat
 * @property {readonly Message[]} messages oldest first; an unchanged message is the same object in
 *   the next render. Its `status` says how far it is: `thinking`, `streaming`, `complete`, …
 * @property {boolean} isLoading an answer is being made
 * @property {string | null} error why the last answer failed, or what failed since: a sentence for
 *   people. The next `sendMessage` clears it
 * @property {boolean} hasOlder the server has older messages than these
 * @property {() => Promise<void>} loadOlder brings in the page of messages before the oldest one.
 *   Resolves when it is there, or could not be had; never rejects
 * @property {(prompt: string, options?: SendOptions) => Promise<void>} sendMessage asks; an answer
 *   still being made is replaced, unless `options` say otherwise. Resolves when the answer has
 *   ended, however it did; never rejects
 * @property {() => Promise<void>} stopStream stops the answer, what came of it stays. Resolves when
 *   the server says that it has stopped; never rejects
 * @property {ChatClient} client for everything else
 */

/**
 * Either a client, or where it should go.
 *
 * @typedef {object} ChatProviderProps
 * @property {ChatClient} [client] one of your own: it is connected here, and yours to close
 * @property {string | URL} [base] where the server is; default: where the page came from. Another
 *   one is another client, and all below begins anew
 * @property {string} [sessionId] the conversation to show; default: a new one
 * @property {ReactNode} [children]
 */

/** @type {import('react').Context<Readonly<Chat> | null>} */
const ChatContext = createContext(/** @type {Readonly<Chat> | null} */ (null))

/**
 * Gives a chat to all components below. Without a `client` it makes one, and closes it when it is
 * unmounted, which stops no answer: that goes on at the server, and is there when `sessionId` is
 * shown again.
 *
 * @param {ChatProviderProps} props
 * @returns {import('react').ReactElement}
 */
export function ChatProvider({ client, base, sessionId, children }) {
  if (client) return createElement(Provider, { client }, children)
  return createElement(OwnProvider, { key: String(base), base, sessionId }, children)
}

/**
 * The chat of the nearest `ChatProvider` above. Renders again whenever something changes.
 *
 * @returns {Readonly<Chat>}
 */
export function useChat() {
  const chat = useContext(ChatContext)
  if (!chat) throw new Error('useChat needs a <ChatProvider> above the component that calls it.')
  return chat
}

/** @param {{client: ChatClient, children?: ReactNode}} props */
function Provider({ client, children }) {
  useEffect(() => {
    client.connect()
  }, [client])
  return createElement(ChatContext.Provider, { value: useClient(client) }, children)
}

/** @param {{base?: string | URL, sessionId?: string, children?: ReactNode}} props */
function OwnProvider({ base, sessionId, children }) {
  const [own, setOwn] = useState(() => new OwnClient(base, sessionId))
  const { client } = own
  useEffect(() => {
    // Hidden for a while (<Activity>), and here again: the same conversation, by a new client.
    if (own.closed) return setOwn(new OwnClient(own.base, client.getSnapshot().session_id))
    return own.hold()
  }, [own, client])
  useEffect(() => {
    const isShown = sessionId === undefined || sessionId === client.getSnapshot().session_id
    if (!isShown && !own.closed) client.open(sessionId)
  }, [own, client, sessionId])
  return createElement(ChatContext.Provider, { value: useClient(client) }, children)
}

/**
 * @param {ChatClient} client
 * @returns {Readonly<Chat>}
 */
function useClient(client) {
  const { messages, busy, error, hasOlder } = useSyncExternalStore(
    client.subscribe,
    client.getSnapshot,
    getServerSnapshot,
  )
  const actions = useMemo(
    () => ({
      client,
      /** @type {Chat['sendMessage']} */
      sendMessage: (prompt, options) => client.send(prompt, options),
      // No arguments: as an `onClick` it is given an event.
      stopStream: () => client.stop(),
      loadOlder: () => client.loadOlder(),
    }),
    [client],
  )
  return useMemo(() => {
    const failed = error ?? messages.at(-1)?.error?.error ?? null
    return Object.freeze({ messages, isLoading: busy, error: failed, hasOlder, ...actions })
  }, [messages, busy, error, hasOlder, actions])
}

/** A client that is closed when nobody holds it any more. */
class OwnClient {
  closed = false
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #closing

  /**
   * @param {string | URL | undefined} base
   * @param {string | undefined} session_id
   */
  constructor(base, session_id) {
    // A server that only renders has no page to come from; nobody is asked there.
    const nowhere = globalThis.location ? undefined : 'http://localhost'
    this.base = base
    this.client = new ChatClient({ base: base ?? nowhere, session_id })
  }

  /** @returns {() => void} let go; who holds it again in the same tick, finds it open */
  hold() {
    clearTimeout(this.#closing)
    this.client.connect()
    return () => {
      // StrictMode runs every effect twice, and a child may have sent something in between.
      this.#closing = setTimeout(() => {
        this.closed = true
        this.client.close()
      })
    }
  }
}

const NOTHING = Object.freeze({
  messages: Object.freeze([]),
  busy: false,
  error: null,
  hasOlder: false,
})

/**
 * What a server renders, and a browser first: no conversation, for that is not in the HTML.
 *
 * @returns {Pick<import('./client.js').ClientSnapshot, 'messages' | 'busy' | 'error' | 'hasOlder'>}
 */
function getServerSnapshot() {
  return NOTHING
}
