import { SessionList } from './sessions.js';
export type Frame = import('./frames.js').Frame;
export type Verdict = import('./guard.js').Verdict;
export type Message = import('./message.js').Message;
export type SendOptions = import('./store.js').SendOptions;
export type Connection = import('./transport.js').Connection;
export type ConnectionState = import('./transport.js').ConnectionState;
export type ClientSnapshot = {
    /**
     * of the conversation that is shown
     */
    session_id: string;
    /**
     * oldest first; an unchanged message is the same object in
     * the next snapshot
     */
    messages: readonly Message[];
    /**
     * an answer is being made, or waits for its turn
     */
    busy: boolean;
    /**
     * a stop is under way
     */
    stopping: boolean;
    /**
     * the conversation's history is on its way
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
    /**
     * how the server is reached now
     */
    connection: ConnectionState;
    /**
     * when it is tried again (ms since the epoch), while it is not
     * reached and that is known
     */
    retry_at: number | null;
};
export type ClientEvents = {
    /**
     * a frame has come, and what it was
     */
    frame: {
        frame: Frame;
        verdict: Verdict;
    };
    /**
     * an answer has come to its end, however it did
     */
    ended: {
        message: Message;
    };
    /**
     * the server is reached in another way, or not
     */
    connection: {
        state: ConnectionState;
    };
    /**
     * another conversation is shown
     */
    session: {
        session_id: string;
    };
    /**
     * the list of conversations has changed
     */
    sessions: {};
};
export type ClientOptions = {
    /**
     * where the server is; default: where the page came from
     */
    base?: string | URL;
    WebSocket?: typeof globalThis.WebSocket;
    fetch?: typeof globalThis.fetch;
    /**
     * your token for a server with
     * sign-in, or a function that returns one or a promise of one: it is called again before the sign-in
     * expires
     */
    token?: string | import('./credentials.js').TokenSource;
    /**
     * the conversation to show first; default: a new one
     */
    session_id?: string;
    /**
     * what `send` does by default while an answer is
     * being made
     */
    on_conflict?: SendOptions['on_conflict'];
    /**
     * whose tab it is: it says when that is looked at again. None in Node
     */
    window?: Window;
    /**
     * another way to the server than WebSocket and HTTP
     */
    transport?: Connection;
};
/**
 * One server: the conversation that is shown, the list of all of them, and the way to the server.
 *
 *     const client = new ChatClient()
 *     client.subscribe(() => show(client.getSnapshot()))
 *     client.connect()
 *     client.send('Hello')
 *
 * `getSnapshot` and `subscribe` are bound: `useSyncExternalStore(client.subscribe,
 * client.getSnapshot)` takes them as they are.
 */
export declare class ChatClient {
    #private;
    /** @param {ClientOptions} [options] */
    constructor({ base, WebSocket, fetch: plainFetch, token, session_id, on_conflict, window, transport, }?: ClientOptions);
    getSnapshot: () => Readonly<ClientSnapshot>;
    /**
     * @param {() => void} listener called after every change
     * @returns {() => void} unsubscribe
     */
    subscribe: (listener: () => void) => () => void;
    /**
     * @template {keyof ClientEvents} K
     * @param {K} event
     * @param {(detail: ClientEvents[K]) => void} listener
     * @returns {() => void} off
     */
    on<K extends keyof ClientEvents>(event: K, listener: (detail: ClientEvents[K]) => void): () => void;
    /** The list of conversations. It is empty until its `load` is called. */
    get sessions(): SessionList;
    /** How many frames were dropped, by what they were. */
    get dropped(): {
        stale: number;
        duplicate: number;
        gap: number;
        unknown: number;
        reply: number;
    };
    /**
     * Reaches for the server, and stays in touch until `close`: it is tried again for as long as it
     * takes, looked for again when the tab is, and asked now and then whether it is still there. Called
     * again, it does not wait for the next try but has it now.
     *
     * @returns {Promise<void>} resolves when it is reached
     */
    connect(): Promise<void>;
    /**
     * Asks, and shows question and answer at once.
     *
     * @param {string} prompt
     * @param {SendOptions} [options]
     * @returns {Promise<void>} resolves when the answer has ended, however it did; never rejects
     */
    send(prompt: string, options?: SendOptions): Promise<void>;
    /**
     * Stops an answer; what came of it stays.
     *
     * @param {string} [stream_id] default: the one that speaks
     * @returns {Promise<void>} resolves when the server says that it has stopped; never rejects
     */
    stop(stream_id?: string): Promise<void>;
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
     * Reads a stream of this conversation that somebody else has started.
     *
     * @param {string} stream_id
     * @param {number} [after] the last frame that is shown already; default: none, all of it is read
     * @returns {Promise<void>} resolves when it has ended, or is read already; never rejects
     */
    resume(stream_id: string, after?: number): Promise<void>;
    /**
     * From now on shows what others ask, as far as the transport can tell of it. Happens by itself once
     * the server is reached.
     *
     * @param {string} [session_id] another conversation, which is opened; default: the one that is shown
     */
    watch(session_id?: string): void;
    /**
     * Brings in what the server knows of this conversation and we do not. Happens by itself whenever
     * the server is reached again, and over HTTP now and then.
     *
     * @returns {Promise<void>} never rejects: what cannot be had now, comes when it can
     */
    refresh(): Promise<void>;
    /**
     * Brings in the page of messages before the oldest one that is shown, if the server has one.
     *
     * @returns {Promise<void>} resolves when it is there, or could not be had; never rejects
     */
    loadOlder(): Promise<void>;
    /**
     * Shows another conversation. Answers of the one that is left go on at the server.
     *
     * @param {string} [session_id] default: a new one, which the server need not be asked about
     * @returns {Promise<void>} resolves when its history is shown, as far as the server can be reached
     */
    open(session_id?: string): Promise<void>;
    /** Who answers, and within which limits. Rejects with `ConnectionLost` or `Refused`. */
    info(): Promise<import("./api.js").ServerInfo>;
    /** Leaves everything; answers go on at the server. */
    close(): void;
}
