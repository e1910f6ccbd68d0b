import { getSessionMessages } from './api.js'
import { ConnectionLost, isAbort } from './errors.js'
import { judge, nowhere, read, take } from './guard.js'
import { readFrames } from './lines.js'
import { refusal } from './transport-http.js'

/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./api.js').StoredMessage} StoredMessage */

/**
 * @typedef {object} StreamHandle
 * @property {() => void} abort stop reading; no callback is called any more. The answer itself is
 *   stopped by `POST /api/streams/{id}/cancel`
 * @property {Promise<void>} finished resolves when the last callback has returned; rejects only with
 *   what a callback has thrown
 */

/**
 * @typedef {object} StreamOptions
 * @property {(text: string, streamId: string) => void} onDelta a piece of the answer
 * @property {(streamId: string, frame: Frame) => void} onDone the answer has ended without failing;
 *   `frame.finish_reason` says how
 * @property {(error: string, streamId: string | undefined) => void} onError it failed, was refused,
 *   or the connection broke off: a sentence for people
 * @property {(status: string, streamId: string) => void} [onStatus] `thinking` once and first, then
 *   what the agent does, and `complete` just before `onDone`
 * @property {string} [sessionId]
 * @property {(messages: StoredMessage[]) => void} [onRehydrate] after an error: what the server's
 *   history says about `sessionId`
 */

/**
 * The server that a response came from, with its path prefix; undefined for a response made by hand.
 *
 * @param {string} url
 */
function serverOfResponse(url) {
  if (url === '') return undefined
  const [, server] = /^([^?#]*\/)api\/(?:chat|streams\/[^/?#]+)(?:[?#]|$)/.exec(url) ?? []
  return server ?? new URL('/', url)
}

/**
 * Reads the answer in a `fetch` response (of `POST /api/chat` or `GET /api/streams/{id}`) and hands
 * its pieces to callbacks.
 *
 * Exactly one of `onDone` and `onError` is called, unless the reading is aborted, by the handle or
 * by the signal given to `fetch`: that is silent. Frames that are not of this answer, or came
 * before, are dropped. What a callback throws is no error of the stream: it ends the reading, and
 * `finished` rejects with it.
 *
 * @param {Response} response
 * @param {StreamOptions['onDelta']} onDelta
 * @param {StreamOptions['onDone']} onDone
 * @param {StreamOptions['onError']} onError
 * @param {StreamOptions['onStatus']} [onStatus]
 * @param {string} [sessionId]
 * @param {StreamOptions['onRehydrate']} [onRehydrate]
 * @returns {Promise<StreamHandle>} as soon as the reading has begun; rejects if there is no body
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
  if (response.ok && !response.body) throw new Error('No response body')
  const reader = response.ok ? response.body?.getReader() : undefined
  let streamId = response.headers.get('X-Stream-Id') ?? undefined
  let aborted = false
  const frames = reader ? framesOfOne(reader, streamId) : refused(response)

  /** @param {string} error */
  const fail = async (error) => {
    onError(error, streamId)
    if (!sessionId || !onRehydrate) return
    const messages = await getSessionMessages(sessionId, {
      base: serverOfResponse(response.url),
    }).catch(() => null) // the error itself has been reported
    if (messages && !aborted) onRehydrate(messages)
  }

  const pump = async () => {
    if (reader && streamId !== undefined) onStatus?.('thinking', streamId)
    for (;;) {
      const { value: frame, failure } = await frames.next().then(
        ({ value }) => ({ value, failure: null }),
        (error) => ({ value: undefined, failure: error }),
      )
      if (aborted || isAbort(failure)) return
      if (failure) return fail(failure.message)
      if (!frame) return fail('The response ended before the answer did.')
      if (streamId === undefined) onStatus?.('thinking', frame.stream_id)
      streamId = frame.stream_id
      if (frame.type === 'token') {
        onDelta(frame.text ?? '', streamId)
      } else if (frame.type === 'status') {
        if (frame.status && frame.status !== 'thinking') onStatus?.(frame.status, streamId)
      } else if (frame.type === 'done') {
        onStatus?.('complete', streamId)
        return onDone(streamId, frame)
      } else if (frame.type === 'error') {
        return fail(frame.error ?? 'The answer failed.')
      }
    }
  }

  const letGo = () => reader?.cancel().catch(() => {}) // nobody reads what may follow
  return {
    finished: pump().finally(letGo),
    abort() {
      aborted = true
      letGo()
    },
  }
}

/**
 * The frames of one answer, each once and in order.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @param {string | undefined} streamId undefined: that of the first frame
 * @returns {AsyncGenerator<Frame, undefined, void>} throws `ConnectionLost` or `BadLine`
 */
async function* framesOfOne(reader, streamId) {
  const view = nowhere()
  let last = 0
  for await (const raw of readFrames(reader)) {
    // A server that does not number its frames sends each of them once and in order.
    const { stream_id = streamId ?? '', epoch = 1, seq = last + 1 } = raw
    const frame = { ...raw, stream_id, epoch, seq }
    streamId ??= stream_id
    // The first frame of it says where in the stream the response begins.
    if (view.cursors.size === 0 && stream_id === streamId) read(view, streamId, seq - 1)
    const verdict = judge(view, frame)
    if (verdict === 'gap') throw new ConnectionLost('A piece of the answer is missing.')
    if (verdict !== 'next') continue
    take(view, frame)
    last = seq
    yield frame
  }
}

/**
 * @param {Response} response
 * @returns {AsyncGenerator<Frame, undefined, void>}
 */
async function* refused(response) {
  throw await refusal(response)
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
