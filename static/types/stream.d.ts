export type Frame = import('./frames.js').Frame;
export type StoredMessage = import('./api.js').StoredMessage;
export type StreamHandle = {
    /**
     * stop reading; no callback is called any more. The answer itself is
     * stopped by `POST /api/streams/{id}/cancel`
     */
    abort: () => void;
    /**
     * resolves when the last callback has returned; rejects only with
     * what a callback has thrown
     */
    finished: Promise<void>;
};
export type StreamOptions = {
    /**
     * a piece of the answer
     */
    onDelta: (text: string, streamId: string) => void;
    /**
     * the answer has ended without failing;
     * `frame.finish_reason` says how
     */
    onDone: (streamId: string, frame: Frame) => void;
    /**
     * it failed, was refused,
     * or the connection broke off: a sentence for people
     */
    onError: (error: string, streamId: string | undefined) => void;
    /**
     * `thinking` once and first, then
     * what the agent does, and `complete` just before `onDone`
     */
    onStatus?: (status: string, streamId: string) => void;
    sessionId?: string;
    /**
     * after an error: what the server's
     * history says about `sessionId`
     */
    onRehydrate?: (messages: StoredMessage[]) => void;
};
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
export declare function handleStream(response: Response, onDelta: StreamOptions['onDelta'], onDone: StreamOptions['onDone'], onError: StreamOptions['onError'], onStatus?: StreamOptions['onStatus'], sessionId?: string, onRehydrate?: StreamOptions['onRehydrate']): Promise<StreamHandle>;
/**
 * `handleStream` with its callbacks given once.
 *
 * @param {StreamOptions} options
 * @returns {(response: Response) => Promise<StreamHandle>}
 */
export declare function createStreamHandler({ onDelta, onDone, onError, onStatus, sessionId, onRehydrate, }: StreamOptions): (response: Response) => Promise<StreamHandle>;
