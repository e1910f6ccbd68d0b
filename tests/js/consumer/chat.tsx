/**
 * A React page with a chat, in strict TypeScript. The browser's tests hold on to the same marks as
 * on our own page.
 */
import { Activity, StrictMode, useEffect, useRef, useState } from 'react'
import { createRoot } from 'react-dom/client'

import { ChatClient } from 'jarvis-stream-client'
import { ChatProvider, useChat } from 'jarvis-stream-client/react'

const query = new URLSearchParams(location.search)
/** The page's own client, if it is to have one; else each provider makes its own. */
const client = query.has('client') ? new ChatClient({ session_id: location.hash.slice(1) }) : null

function Chat({ greeting }: { greeting: string | null }) {
  const { messages, isLoading, error, sendMessage, stopStream } = useChat()
  const [prompt, setPrompt] = useState('')
  const greeted = useRef(false)
  useEffect(() => {
    if (!greeting || greeted.current) return
    greeted.current = true
    void sendMessage(greeting)
  }, [greeting, sendMessage])
  return (
    <main data-testid="chat" data-state={isLoading ? 'loading' : 'idle'}>
      {messages.map(({ id, role, status, content, finish_reason }) => (
        <article key={id} data-testid="message" data-role={role} data-state={status}>
          <p data-part="text">{content}</p>
          <small>{finish_reason}</small>
        </article>
      ))}
      {error && <p data-testid="error">{error}</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void sendMessage(prompt)
          setPrompt('')
        }}
      >
        <input data-testid="prompt" value={prompt} onChange={(e) => setPrompt(e.target.value)} />
        <button data-testid="stop" type="button" onClick={stopStream}>
          Stop
        </button>
      </form>
    </main>
  )
}

/** The conversation is named in the address: another one is another chat. */
function Page() {
  const [mounted, setMounted] = useState(true)
  const [visible, setVisible] = useState(true)
  const [sessionId, setSessionId] = useState(location.hash.slice(1))
  useEffect(() => {
    const read = () => setSessionId(location.hash.slice(1))
    window.addEventListener('hashchange', read)
    return () => window.removeEventListener('hashchange', read)
  }, [])
  const chat = (
    <ChatProvider {...(client ? { client } : { sessionId })}>
      <Chat greeting={query.get('greeting')} />
    </ChatProvider>
  )
  return (
    <>
      <button data-testid="mounted" onClick={() => setMounted(!mounted)}>
        {mounted ? 'Unmount' : 'Mount'}
      </button>
      <button data-testid="visible" onClick={() => setVisible(!visible)}>
        {visible ? 'Hide' : 'Show'}
      </button>
      {mounted && <Activity mode={visible ? 'visible' : 'hidden'}>{chat}</Activity>}
    </>
  )
}

const root = document.getElementById('root')
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Page />
    </StrictMode>,
  )
}
