/** A program without React, in strict TypeScript. It is only checked, never run. */
import { ChatClient, Refused, judge, nowhere } from 'jarvis-stream-client'
import type { ClientSnapshot, Frame, Message } from 'jarvis-stream-client'
import { createStreamHandler, handleStream } from 'jarvis-stream-client/stream'

const client = new ChatClient({ base: 'http://127.0.0.1:8765', session_id: 's' })

const unsubscribe: () => void = client.subscribe(() => {
  const { messages, busy, connection }: Readonly<ClientSnapshot> = client.getSnapshot()
  const last: Message | undefined = messages.at(-1)
  if (busy && last?.status === 'streaming') console.log(connection, last.content)
  // @ts-expect-error A snapshot never changes.
  client.getSnapshot().busy = false
  // @ts-expect-error Nor does what is in it.
  messages.push(last)
  // @ts-expect-error There is no such status.
  if (last?.status === 'finished') console.log()
})

const off = client.on('frame', ({ frame, verdict }) => {
  const text: string | undefined = frame.text
  if (verdict === 'stale') console.log(text)
  // @ts-expect-error There is no such verdict.
  if (verdict === 'fresh') console.log()
})
client.on('ended', ({ message }) => console.log(message.finish_reason))
// @ts-expect-error There is no such event.
client.on('begun', () => {})

const sent: Promise<void> = client.send('Hello', { on_conflict: 'enqueue' })
// @ts-expect-error A prompt is text.
client.send(42)
// @ts-expect-error There is no such option.
client.send('Hello', { onConflict: 'enqueue' })

const frame: Frame = { type: 'token', stream_id: 'x', trace_id: 'y', epoch: 1, seq: 1, text: 'z' }
if (judge(nowhere(), frame) === 'unknown') await client.stop(frame.stream_id)

const info = await client.info().catch((error: unknown) => {
  if (error instanceof Refused) console.log(error.code, error.message)
  return null
})
console.log(info?.agent.is_model)
await sent
off()
unsubscribe()
client.close()

const response = await fetch('http://127.0.0.1:8765/api/chat', { method: 'POST' })
const read = createStreamHandler({
  onDelta: (text, streamId) => console.log(text.length, streamId.length),
  onDone: (streamId, frame) => console.log(streamId, frame.finish_reason),
  onError: (error, streamId) => console.log(error.length, streamId?.length),
  sessionId: 's',
  onRehydrate: (messages) => console.log(messages[0]?.content),
})
const { abort, finished } = await read(response.clone())
abort()
await finished
await handleStream(
  response,
  (text) => console.log(text),
  (streamId) => console.log(streamId),
  (error) => console.log(error),
)
