export type Frame = import('./frames.js').Frame;
/** @typedef {import('./frames.js').Frame} Frame */
/** Longest line taken, in UTF-16 code units: far above any frame, far below a memory problem. */
export declare const MAX_LINE: number;
/**
 * Cuts bytes or text into frames, one JSON object per line.
 *
 * Lines end at `\n` only (U+2028 inside a text is text). Empty lines are heartbeats and skipped.
 * The generators must be run to their end; they throw `BadLine` at the first line that is no frame,
 * after having yielded the frames before it.
 */
export declare class LineParser {
    #private;
    /** @param {{maxLine?: number}} [options] */
    constructor({ maxLine }?: {
        maxLine?: number;
    });
    /**
     * The frames that this chunk completes. Chunks may be cut anywhere, inside a character too.
     *
     * @param {Uint8Array | string} chunk
     * @returns {Generator<Frame, void, void>}
     */
    push(chunk: Uint8Array | string): Generator<Frame, void, void>;
    /**
     * The frame in a last line that has no newline, if there is one.
     *
     * @returns {Generator<Frame, void, void>}
     */
    end(): Generator<Frame, void, void>;
}
/**
 * The frames of a text that holds whole lines, such as one WebSocket message.
 *
 * @param {string} text
 * @returns {Generator<Frame, void, void>}
 */
export declare function parseLines(text: string): Generator<Frame, void, void>;
/**
 * The frames of a response body. The reader stays the caller's: cancelling it ends the iteration.
 * Throws `ConnectionLost` when the connection breaks off, and lets an AbortError pass.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @param {() => void} [onBytes] something has come, be it a heartbeat
 * @returns {AsyncGenerator<Frame, void, void>}
 */
export declare function readFrames(reader: ReadableStreamDefaultReader<Uint8Array>, onBytes?: () => void): AsyncGenerator<Frame, void, void>;
