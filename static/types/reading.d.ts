/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./guard.js').Verdict} Verdict */
export type Frame = import('./frames.js').Frame;
export type Verdict = import('./guard.js').Verdict;
export type StartRequest = {
    prompt: string;
    session_id: string;
    /**
     * minted by the client: also the request's idempotency key
     */
    stream_id: string;
    /**
     * only frames with a greater seq
     */
    after?: number;
    on_conflict?: 'interrupt' | 'reject' | 'enqueue' | 'rollback';
    /**
     * the `stream_id` of a turn that it takes the place of
     */
    replaces?: string;
    on_disconnect?: 'cancel' | 'continue';
};
export type FrameListener = (frame: Frame) => Verdict;
export type StreamListener = (first: Frame, isNew?: boolean) => void;
export type Reading = {
    /**
     * resolves when a later start can no longer overtake this one;
     * never rejects, and is resolved at the latest when `closed` settles
     */
    accepted: Promise<void>;
    /**
     * resolves after the terminal frame, or after `leave()`; rejects
     * with `Refused`, `ConnectionLost` or `BadLine`
     */
    closed: Promise<void>;
    /**
     * stop reading, which is not a stop of the answer; the listener is not
     * called any more
     */
    leave: () => void;
};
export type CancelReport = {
    stream_id: string;
    /**
     * false: it had ended before
     */
    cancelled: boolean;
    /**
     * the agent's cleanup has ended within the bound
     */
    clean: boolean;
    cleanup_ms: number;
};
export type Transport = {
    start: (request: StartRequest, onFrame: FrameListener) => Reading;
    resume: (streamId: string, after: number, onFrame: FrameListener) => Reading;
    /**
     * resolves when the agent has
     * stopped; rejects with `Refused` or `ConnectionLost`
     */
    cancel: (streamId: string) => Promise<CancelReport>;
    /**
     * tell, as long as it can be
     * told, of the streams of a session that live and that come, whoever started them: each by its
     * first frame, and maybe more than once. To read one is `resume`
     */
    watch?: (sessionId: string, onStream: StreamListener) => void;
    /**
     * tell of them no more
     */
    unwatch?: (sessionId: string) => void;
    /**
     * leave everything
     */
    close: () => void;
};
export type Deferred<T> = {
    promise: Promise<T>;
    resolve: (value: T) => void;
    reject: (error: unknown) => void;
};
/**
 * What a client asks for: one answer to one prompt.
 *
 * @typedef {object} StartRequest
 * @property {string} prompt
 * @property {string} session_id
 * @property {string} stream_id minted by the client: also the request's idempotency key
 * @property {number} [after] only frames with a greater seq
 * @property {'interrupt' | 'reject' | 'enqueue' | 'rollback'} [on_conflict]
 * @property {string} [replaces] the `stream_id` of a turn that it takes the place of
 * @property {'cancel' | 'continue'} [on_disconnect]
 */
/**
 * Is given every frame of one stream in the order of arrival, and says what it made of it.
 *
 * @typedef {(frame: Frame) => Verdict} FrameListener
 */
/**
 * Is given the first frame of a stream, and whether that has begun just now (false: it may have been
 * going on for a while).
 *
 * @typedef {(first: Frame, isNew?: boolean) => void} StreamListener
 */
/**
 * One stream being read.
 *
 * @typedef {object} Reading
 * @property {Promise<void>} accepted resolves when a later start can no longer overtake this one;
 *   never rejects, and is resolved at the latest when `closed` settles
 * @property {Promise<void>} closed resolves after the terminal frame, or after `leave()`; rejects
 *   with `Refused`, `ConnectionLost` or `BadLine`
 * @property {() => void} leave stop reading, which is not a stop of the answer; the listener is not
 *   called any more
 */
/**
 * What the server says about a stop.
 *
 * @typedef {object} CancelReport
 * @property {string} stream_id
 * @property {boolean} cancelled false: it had ended before
 * @property {boolean} clean the agent's cleanup has ended within the bound
 * @property {number} cleanup_ms
 */
/**
 * The one shape of every way to the server.
 *
 * @typedef {object} Transport
 * @property {(request: StartRequest, onFrame: FrameListener) => Reading} start
 * @property {(streamId: string, after: number, onFrame: FrameListener) => Reading} resume
 * @property {(streamId: string) => Promise<CancelReport>} cancel resolves when the agent has
 *   stopped; rejects with `Refused` or `ConnectionLost`
 * @property {(sessionId: string, onStream: StreamListener) => void} [watch] tell, as long as it can be
 *   told, of the streams of a session that live and that come, whoever started them: each by its
 *   first frame, and maybe more than once. To read one is `resume`
 * @property {(sessionId: string) => void} [unwatch] tell of them no more
 * @property {() => void} close leave everything
 */
/**
 * A promise and the functions that settle it.
 *
 * @template T
 * @typedef {object} Deferred
 * @property {Promise<T>} promise
 * @property {(value: T) => void} resolve
 * @property {(error: unknown) => void} reject
 */
/**
 * @template T
 * @returns {Deferred<T>}
 */
export declare function deferred<T>(): Deferred<T>;
