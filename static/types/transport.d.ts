export type Ticket = import('./api.js').Ticket;
export type Transport = import('./reading.js').Transport;
export type StartRequest = import('./reading.js').StartRequest;
export type FrameListener = import('./reading.js').FrameListener;
export type StreamListener = import('./reading.js').StreamListener;
export type Reading = import('./reading.js').Reading;
export type ConnectionState = 'connecting' | 'websocket' | 'http' | 'reconnecting' | 'offline';
export type Keeping = {
    state: ConnectionState;
    /**
     * when the server is tried again, in ms since the epoch; null:
     * nothing waits for that
     */
    retry_at: number | null;
    /**
     * the listener is called after every
     * change of these two
     */
    subscribe: (listener: () => void) => () => void;
    /**
     * resolves when the server is reached, however long it takes
     */
    connect: () => Promise<void>;
    /**
     * somebody is here again: pauses end now, and connections are checked
     */
    wake: () => void;
    /**
     * looks whether the server is still there; cheap, and done
     * now and then
     */
    check: (silence?: number) => void;
};
export type Connection = Transport & Keeping;
/**
 * WebSocket first, HTTP as soon as that fails, and answers that survive their connection.
 *
 * - The first handshake that fails falls back to HTTP at once; the WebSocket is then left alone for
 *   a while, unless HTTP fails too (then it was the server, not the WebSocket).
 * - A connection that dies in mid-answer is resumed from the last frame that was `next`, on
 *   whichever transport works, with full-jitter backoff.
 * - A gap is resumed over HTTP: on a connection of its own nothing left on the socket mixes in.
 * - An idle client reconnects by itself.
 * - Whatever waits for its next try does not, when somebody is here again (`wake`).
 *
 * @implements {Connection}
 */
export declare class FallbackTransport implements Connection {
    #private;
    /**
     * @param {object} [options]
     * @param {string | URL} [options.base] where the server is; default: where the page came from
     * @param {typeof globalThis.WebSocket} [options.WebSocket]
     * @param {typeof globalThis.fetch} [options.fetch]
     * @param {() => Promise<string | Ticket>} [options.getTicket] the credential of a WebSocket
     * @param {() => Promise<Ticket>} [options.renewTicket] one of the next sign-in
     * @param {(tries: number) => number} [options.backoff] how long to wait, in milliseconds, after so
     *   many tries that failed
     * @param {(ms: number, signal: AbortSignal) => Promise<void>} [options.sleep]
     * @param {() => number} [options.now] milliseconds since the epoch
     * @param {import('./open-responses.js').OpenResponses} [options.responses] what the tabs hold open
     * @param {number} [options.pingTimeout] how long an open socket may take to show a sign of life
     */
    constructor({ base, WebSocket, fetch, getTicket, renewTicket, backoff: pauseAfter, sleep: rest, now, pingTimeout, responses, }?: {
        base?: string | URL;
        WebSocket?: typeof globalThis.WebSocket;
        fetch?: typeof globalThis.fetch;
        getTicket?: () => Promise<string | Ticket>;
        renewTicket?: () => Promise<Ticket>;
        backoff?: (tries: number) => number;
        sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
        now?: () => number;
        responses?: import('./open-responses.js').OpenResponses;
        pingTimeout?: number;
    });
    get state(): ConnectionState;
    /** When the server is tried again, in ms since the epoch; null: nothing waits for that. */
    get retry_at(): number | null;
    /**
     * @param {() => void} listener called after every change of `state` or `retry_at`
     * @returns {() => void} unsubscribe
     */
    subscribe(listener: () => void): () => void;
    /** Resolves when the server is reachable, however long that takes, or this is closed. */
    connect(): Promise<void>;
    /**
     * Somebody is here again, or the network is: what waits for its next try has it now, and what
     * looks alive has to show it.
     */
    wake(): void;
    /**
     * Looks whether the server is still there. Costs an idle client one small request at most; over
     * HTTP it is also when the WebSocket is tried again.
     *
     * @param {number} [silence] a socket on which nothing came for this long has to answer, in ms
     */
    check(silence?: number): void;
    /**
     * @param {StartRequest} request
     * @param {FrameListener} onFrame
     */
    start(request: StartRequest, onFrame: FrameListener): import("./reading.js").Reading;
    /**
     * @param {string} streamId
     * @param {number} after
     * @param {FrameListener} onFrame
     */
    resume(streamId: string, after: number, onFrame: FrameListener): import("./reading.js").Reading;
    /** @param {string} streamId */
    cancel(streamId: string): Promise<import("./reading.js").CancelReport>;
    /**
     * Over the WebSocket only: who has none is told of nothing.
     *
     * @param {string} sessionId
     * @param {StreamListener} onStream
     */
    watch(sessionId: string, onStream: StreamListener): void;
    /** @param {string} sessionId */
    unwatch(sessionId: string): void;
    close(): void;
}
