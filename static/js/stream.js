import { getSessionMessages } from './api.js'
import { ConnectionLost, isAbort } from './errors.js'
import { judge, nowhere, read, take } from './guard.js'
import { readFrames } from './lines.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./api.js').StoredMessage} StoredMessage */

/**
 * @typedef {object} StreamHandle
 * @property {() => void} abort stop reading; no callback is called any more. The answer itself is
 *   stopped by `POST /api/streams/{id}/cancel`
 * @property {Promise<void>} finished resolves when the last callback has returned
 */

/**
 * @typedef {object} StreamOptions
 * @property {(text: string, streamId: string) => void} onDelta a piece of the answer
 * @property {(streamId: string, frame: Frame) => void} onDone the answer has ended without failing;
 *   `frame.finish_reason` says how
 * @property {(error: string, streamId: string | undefined) => void} onError it failed, or the
 *   connection did: a sentence for people
 * @property {(status: string, streamId: string) => void} [onStatus] `thinking` once and first, then
 *   what the agent does, and `complete` just before `onDone`
 * @property {string} [sessionId]
 * @property {(messages: StoredMessage[]) => void} [onRehydrate] after an error: what the server's
 *   history says about `sessionId`
 */

/**
 * Reads the answer in a `fetch` response (of `POST /api/chat` or `GET /api/streams/{id}`) and hands
 * its pieces to callbacks.
 *
 * Exactly one of `onDone` and `onError` is called, unless the reading is aborted, by the handle or
 * by the signal given to `fetch`: that is silent. Frames that are not of this answer, or came
 * before, are dropped.
 *
 * @param {Response} response
 * @param {StreamOptions['onDelta']} onDelta
 * @param {StreamOptions['onDone']} onDone
 * @param {StreamOptions['onError']} onError
 * @param {StreamOptions['onStatus']} [onStatus]
 * @param {string} [sessionId]
 * @param {StreamOptions['onRehydrate']} [onRehydrate]
 * @returns {Promise<StreamHandle>} as soon as the reading has begun
 */
export async function handleStream(
  response,
  onDelta,
  onDone,
  onError,
  onStatus,
  sessionId,
  onRehydrate,
) {
  const reader = response.body?.getReader()
  if (!reader) throw new Error('No response body')
  const headerId = response.headers.get('X-Stream-Id') ?? undefined
  if (headerId) onStatus?.('thinking', headerId)

  let streamId = headerId
  let aborted = false

  const pump = async () => {
    const view = nowhere()
    let last = 0
    for await (const raw of readFrames(reader)) {
      if (aborted) return
      // A server that does not number its frames sends each of them once and in order.
      const { epoch = 1, seq = last + 1 } = raw
      const frame = { ...raw, epoch, seq }
      // The first frame says which stream this is, and where in it the response begins.
      if (view.cursors.size === 0) read(view, frame.stream_id, seq - 1)
      const verdict = judge(view, frame)
      if (verdict === 'gap') throw new ConnectionLost('A piece of the answer is missing.')
      if (verdict !== 'next') continue
      take(view, frame)
      last = seq
      if (!streamId) onStatus?.('thinking', frame.stream_id)
      streamId = frame.stream_id
      if (frame.type === 'token') {
        onDelta(frame.text ?? '', streamId)
      } else if (frame.type === 'status') {
        if (frame.status && frame.status !== 'thinking') onStatus?.(frame.status, streamId)
      } else if (frame.type === 'done') {
        onStatus?.('complete', streamId)
        return onDone(streamId, frame)
      } else if (frame.type === 'error') {
        throw new Error(frame.error ?? 'The answer failed.')
      }
    }
    if (!aborted) throw new ConnectionLost('The response ended before the answer did.')
  }

  /** @param {string} error */
  const fail = async (error) => {
    onError(error, streamId)
    if (!sessionId || !onRehydrate) return
    const messages = await getSessionMessages(sessionId, {
      base: response.url || undefined,
    }).catch(() => null) // the error itself has been reported
    if (messages && !aborted) onRehydrate(messages)
  }

  const finished = pump()
    .catch((error) => {
      if (!aborted && !isAbort(error)) return fail(error.message)
    })
    .finally(() => reader.cancel().catch(() => {})) // nobody reads what may follow
  return {
    finished,
    abort() {
      aborted = true
      reader.cancel().catch(() => {})
    },
  }
}

/**
 * `handleStream` with its callbacks given once.
 *
 * @param {StreamOptions} options
 * @returns {(response: Response) => Promise<StreamHandle>}
 */
export function createStreamHandler({
  onDelta,
  onDone,
  onError,
  onStatus,
  sessionId,
  onRehydrate,
}) {
  return (response) =>
    handleStream(response, onDelta, onDone, onError, onStatus, sessionId, onRehydrate)
}
