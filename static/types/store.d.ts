export type Frame = import('./frames.js').Frame;
export type Verdict = import('./guard.js').Verdict;
export type Message = import('./message.js').Message;
export type Transport = import('./reading.js').Transport;
export type Reading = import('./reading.js').Reading;
export type StoredSession = import('./api.js').StoredSession;
export type StoredMessage = import('./api.js').StoredMessage;
export type PageOptions = import('./api.js').PageOptions;
export type Snapshot = {
    session_id: string;
    /**
     * oldest first
     */
    messages: readonly Message[];
    /**
     * an answer is being made, or waits for its turn
     */
    busy: boolean;
    /**
     * a stop of the one that speaks is under way
     */
    stopping: boolean;
    /**
     * what the server knows of this conversation is on its way
     */
    loading: boolean;
    /**
     * the server has older messages than these: see `loadOlder`
     */
    hasOlder: boolean;
    /**
     * some of them are on their way
     */
    loadingOlder: boolean;
    /**
     * what failed last, besides answers: a sentence for people
     */
    error: string | null;
};
export type SendOptions = {
    /**
     * `interrupt`: answers still being made
     * are replaced, and from this call on their text does not change any more. `enqueue`: this one
     * waits for its turn. `reject`: it fails while another is being made
     */
    on_conflict?: 'interrupt' | 'enqueue' | 'reject';
    /**
     * the `stream_id` of a turn that it takes the place of, and of all
     * that came after that. They come back when the server refuses. It always interrupts
     */
    replaces?: string;
};
export type Turn = {
    stream_id: string;
    /**
     * null: asked elsewhere, and not fetched yet
     */
    question: Message | null;
    answer: Message;
    /**
     * its ending is our guess, for we could not read on; the server may know
     * better
     */
    lost: boolean;
    /**
     * the server's history has it: should it be missing there, it was taken out
     */
    kept: boolean;
    /**
     * the turn that it was to take the place of
     */
    replaces: string | undefined;
    /**
     * null: not known yet
     */
    epoch: number | null;
    /**
     * what it has taken the place of here, until the server says
     * whether it does there
     */
    removed: readonly Turn[];
};
/**
 * One conversation: its messages, and the answers being made.
 *
 * After every change there is a new, frozen snapshot; an unchanged message is the same object in
 * it. The snapshot is put together when it is read: a piece of an answer costs nothing for all the
 * messages that it does not change.
 */
export declare class ChatStore {
    #private;
    session_id: string;
    /**
     * @param {object} options
     * @param {Transport} options.transport
     * @param {string} [options.session_id] default: a new one
     * @param {boolean} [options.known] the server may know the session, so that to ask for it makes
     *   sense; default: it was given
     * @param {(sessionId: string, page?: PageOptions) => Promise<StoredSession>} [options.fetchSession]
     * @param {number} [options.lastFrameTimeout]
     * @param {() => number} [options.now] milliseconds since the epoch
     * @param {(frame: Frame, verdict: Verdict) => void} [options.onFrame] a frame has come
     * @param {(message: Message) => void} [options.onBegun] an answer has begun to speak
     * @param {(message: Message) => void} [options.onEnded] an answer has come to its end
     */
    constructor({ transport, session_id, known, fetchSession, lastFrameTimeout, now, onFrame, onBegun, onEnded, }: {
        transport: Transport;
        session_id?: string;
        known?: boolean;
        fetchSession?: (sessionId: string, page?: PageOptions) => Promise<StoredSession>;
        lastFrameTimeout?: number;
        now?: () => number;
        onFrame?: (frame: Frame, verdict: Verdict) => void;
        onBegun?: (message: Message) => void;
        onEnded?: (message: Message) => void;
    });
    getSnapshot: () => Readonly<Snapshot>;
    /**
     * @param {() => void} listener called after every change
     * @returns {() => void} unsubscribe
     */
    subscribe: (listener: () => void) => () => void;
    get dropped(): {
        stale: number;
        duplicate: number;
        gap: number;
        unknown: number;
        reply: number;
    };
    /** Whether the server, when it was asked last, knew nothing of this session, and nothing has begun. */
    get isMissing(): boolean;
    /**
     * Asks, and shows question and answer at once.
     *
     * @param {string} prompt
     * @param {SendOptions} [options]
     * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
     */
    send(prompt: string, options?: SendOptions): Promise<void>;
    /**
     * Asks the same question again, in place of that turn and of all that came after it.
     *
     * @param {string} stream_id
     * @returns {Promise<void>} like `send`
     */
    regenerate(stream_id: string): Promise<void>;
    /**
     * Asks another question in place of that turn and of all that came after it.
     *
     * @param {string} stream_id
     * @param {string} prompt
     * @returns {Promise<void>} like `send`
     */
    edit(stream_id: string, prompt: string): Promise<void>;
    /**
     * Tries a turn that failed once more: in its place where the server has kept it, else as if it had
     * not been sent before.
     *
     * @param {string} stream_id
     * @returns {Promise<void>} like `send`
     */
    retry(stream_id: string): Promise<void>;
    /**
     * Stops an answer being made; what came of it stays.
     *
     * @param {string} [stream_id] default: the one that speaks
     * @returns {Promise<void>} resolves when the server says that it has stopped, or when there is
     *   nothing to stop; if the server cannot be told, `error` says so and the answer goes on
     */
    stop(stream_id?: string): Promise<void>;
    /**
     * Reads a stream of this session, whoever started it.
     *
     * @param {string} stream_id
     * @param {number} [after] the last frame that is shown already; 0: what is shown is read anew
     * @returns {Promise<void>} resolves when it has ended, or is over already; never rejects
     */
    resume(stream_id: string, after?: number): Promise<void>;
    /** From now on shows what others ask in this session, as far as the transport can tell of it. */
    watch(): void;
    /**
     * Brings in what the server knows of this session and we do not: what was asked elsewhere, how
     * answers ended that we lost sight of, and what others have taken the place of. What is being read
     * is not touched, nor what the server does not have yet.
     *
     * @returns {Promise<void>} rejects with `ConnectionLost` or `Refused`
     */
    refresh(): Promise<void>;
    /**
     * Brings in the page of messages before the oldest one that is shown. Called again while one is on
     * its way, it waits for that one.
     *
     * @returns {Promise<void>} rejects with `ConnectionLost` or `Refused`
     */
    loadOlder(): Promise<void>;
    /**
     * Takes over a conversation as the server keeps it, and follows the answers in it that are still
     * being made.
     *
     * @param {StoredSession} session
     */
    load(session: StoredSession): void;
    /** Leaves everything; answers go on at the server. */
    close(): void;
    /** The same, except that what was just sent still reaches the server. */
    leave(): void;
}
export type StoredTurn = {
    question: Message | null;
    answer: Message;
    /**
     * of the answer, in the server's words
     */
    status: string;
    epoch: number | null;
};
