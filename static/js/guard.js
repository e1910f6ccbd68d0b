import { isTerminal } from './frames.js'

/**
 * Where a reader of one session stands in each of its streams.
 *
 * @typedef {object} View
 * @property {number} fence the epoch of the newest stream that took the place of what was before
 *   it: text of a lower epoch counts no more
 * @property {Map<string, Cursor>} cursors by `stream_id`, of every stream that is or was read
 */

/**
 * @typedef {object} Cursor
 * @property {number} seq the last frame taken
 * @property {number} epoch of that frame; 0: none was taken yet
 * @property {boolean} open false: ended, or given up; nothing of it counts any more
 * @property {boolean} replaces it takes the place of older streams. One that waited for them in the
 *   queue does not; nor do we say so of one that we come to in its middle
 */

/**
 * What a frame is to a view:
 *   `next`       the piece that comes now: `take` it, and show it
 *   `duplicate`  taken already
 *   `gap`        pieces before it are missing: resume from the cursor
 *   `stale`      of a stream that is over, or that a newer one has replaced: drop it
 *   `unknown`    of a stream that is not read here
 *   `reply`      not part of any stream, but the answer to a command
 *
 * @typedef {'next' | 'duplicate' | 'gap' | 'stale' | 'unknown' | 'reply'} Verdict
 */

/**
 * The view of a reader that knows nothing yet.
 *
 * @returns {View}
 */
export function nowhere() {
  return { fence: 0, cursors: new Map() }
}

/**
 * Judges one frame; changes nothing. This is the only place in the client that decides by ids
 * whether a frame counts.
 *
 * A stream that waits in the queue says so under the epoch of the stream before it, and speaks
 * under a higher one of its own: epochs are compared with the fence, never with each other. How a
 * replaced stream ends may be told after the first words of the newer one, and does count.
 *
 * @param {Readonly<View>} view
 * @param {{type?: string, epoch: number, stream_id: string, seq?: number}} frame
 * @returns {Verdict}
 */
export function judge({ fence, cursors }, { type, epoch, stream_id, seq }) {
  if (seq === undefined) return 'reply'
  const cursor = cursors.get(stream_id)
  if (!cursor) return epoch < fence ? 'stale' : 'unknown'
  if (seq <= cursor.seq) return 'duplicate'
  if (!cursor.open) return 'stale'
  if (epoch < fence && type === 'token') return 'stale'
  return seq === cursor.seq + 1 ? 'next' : 'gap'
}

/**
 * Moves the view to a frame that was `next`.
 *
 * @param {View} view
 * @param {{type?: string, status?: string, epoch: number, stream_id: string, seq?: number}} frame
 */
export function take(view, frame) {
  const { status, epoch, stream_id, seq = 0 } = frame
  const cursor = view.cursors.get(stream_id)
  if (!cursor) return
  cursor.seq = seq
  cursor.epoch = epoch
  if (status === 'queued') cursor.replaces = false
  // Whether it waits is told by the second frame, not by the first.
  if (cursor.replaces && seq > 1) view.fence = Math.max(view.fence, epoch)
  if (isTerminal(frame)) cursor.open = false
}

/**
 * Begins to read a stream, or reads it anew.
 *
 * @param {View} view
 * @param {string} stream_id
 * @param {number} [seq] the last frame that the reader has
 */
export function read(view, stream_id, seq = 0) {
  view.cursors.set(stream_id, { seq, epoch: 0, open: true, replaces: seq === 0 })
}

/**
 * Whether a stream was there before another one spoke. Of one that was asked for, and whose first
 * frame has not come, that cannot be said.
 *
 * @param {Readonly<View>} view
 * @param {string} stream_id
 * @param {{epoch: number}} frame of the other one
 */
export function precedes({ cursors }, stream_id, { epoch }) {
  const cursor = cursors.get(stream_id)
  return !cursor || (cursor.seq > 0 && cursor.epoch < epoch)
}

/**
 * Reads a stream no more: whatever still comes of it is stale.
 *
 * @param {View} view
 * @param {string} stream_id
 */
export function giveUp(view, stream_id) {
  const cursor = view.cursors.get(stream_id)
  if (cursor) cursor.open = false
}
