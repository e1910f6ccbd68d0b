export type View = {
    /**
     * the epoch of the newest stream that took the place of what was before
     * it: text of a lower epoch counts no more
     */
    fence: number;
    /**
     * by `stream_id`, of every stream that is or was read
     */
    cursors: Map<string, Cursor>;
};
export type Cursor = {
    /**
     * the last frame taken
     */
    seq: number;
    /**
     * of that frame; 0: none was taken yet
     */
    epoch: number;
    /**
     * false: ended, or given up; nothing of it counts any more
     */
    open: boolean;
    /**
     * it takes the place of older streams. One that waited for them in the
     * queue does not; nor do we say so of one that we come to in its middle
     */
    replaces: boolean;
};
export type Verdict = 'next' | 'duplicate' | 'gap' | 'stale' | 'unknown' | 'reply';
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
export declare function nowhere(): View;
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
export declare function judge({ fence, cursors }: Readonly<View>, { type, epoch, stream_id, seq }: {
    type?: string;
    epoch: number;
    stream_id: string;
    seq?: number;
}): Verdict;
/**
 * Moves the view to a frame that was `next`.
 *
 * @param {View} view
 * @param {{type?: string, status?: string, epoch: number, stream_id: string, seq?: number}} frame
 */
export declare function take(view: View, frame: {
    type?: string;
    status?: string;
    epoch: number;
    stream_id: string;
    seq?: number;
}): void;
/**
 * Begins to read a stream, or reads it anew.
 *
 * @param {View} view
 * @param {string} stream_id
 * @param {number} [seq] the last frame that the reader has
 */
export declare function read(view: View, stream_id: string, seq?: number): void;
/**
 * Whether a stream was there before another one spoke. Of one that was asked for, and whose first
 * frame has not come, that cannot be said.
 *
 * @param {Readonly<View>} view
 * @param {string} stream_id
 * @param {{epoch: number}} frame of the other one
 */
export declare function precedes({ cursors }: Readonly<View>, stream_id: string, { epoch }: {
    epoch: number;
}): boolean;
/**
 * Reads a stream no more: whatever still comes of it is stale.
 *
 * @param {View} view
 * @param {string} stream_id
 */
export declare function giveUp(view: View, stream_id: string): void;
