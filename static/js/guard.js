/**
 * Where a reader of one session stands: the newest stream it knows, and the last frame of it.
 *
 * Before a first frame: `{epoch: 0, stream_id: null, seq: 0}`. After sending a message: its
 * `stream_id` with `seq` 0 and the epoch as it was, for the server has not told the new one yet.
 *
 * @typedef {object} View
 * @property {number} epoch the highest epoch seen
 * @property {string | null} stream_id
 * @property {number} seq
 */

/**
 * What a frame is to a view:
 *   `next`       the piece that comes now: show it, and move the view to it
 *   `duplicate`  shown already
 *   `gap`        pieces before it are missing: resume from the view's cursor
 *   `stale`      of a stream that a newer one has replaced: drop it
 *   `reply`      not part of any stream, but the answer to a command
 *
 * @typedef {'next' | 'duplicate' | 'gap' | 'stale' | 'reply'} Verdict
 */

/** The view of a reader that knows nothing yet. @type {Readonly<View>} */
export const NOWHERE = Object.freeze({ epoch: 0, stream_id: null, seq: 0 })

/**
 * Judges one frame. This is the only place in the client that decides by ids whether a frame counts.
 *
 * @param {Readonly<View>} view
 * @param {{epoch: number, stream_id: string, seq?: number}} frame
 * @returns {Verdict}
 */
export function judge(view, frame) {
  if (frame.seq === undefined) return 'reply'
  if (frame.epoch < view.epoch) return 'stale'
  if (frame.stream_id === view.stream_id) {
    if (frame.seq <= view.seq) return 'duplicate'
    return frame.seq === view.seq + 1 ? 'next' : 'gap'
  }
  // While we await the first frame of a stream of our own, its epoch is unknown: whatever else
  // comes belongs to a stream that it replaces.
  if (view.stream_id !== null && view.seq === 0) return 'stale'
  if (frame.epoch === view.epoch) return 'stale'
  return frame.seq === 1 ? 'next' : 'gap'
}

/**
 * The view after a frame that was `next`.
 *
 * @param {{epoch: number, stream_id: string, seq?: number}} frame
 * @returns {Readonly<View>}
 */
export function viewAfter({ epoch, stream_id, seq = 0 }) {
  return { epoch, stream_id, seq }
}

/**
 * The view of a reader that has just asked for a stream of its own.
 *
 * @param {Readonly<View>} view
 * @param {string | null} stream_id null: none is awaited any more
 * @returns {Readonly<View>}
 */
export function awaiting(view, stream_id) {
  return { epoch: view.epoch, stream_id, seq: 0 }
}
