export type Ticket = import('./api.js').Ticket;
export type Frame = import('./frames.js').Frame;
export type Transport = import('./reading.js').Transport;
export type StartRequest = import('./reading.js').StartRequest;
export type FrameListener = import('./reading.js').FrameListener;
export type Reading = import('./reading.js').Reading;
export type StreamListener = import('./reading.js').StreamListener;
export type CancelReport = import('./reading.js').CancelReport;
/** @typedef {import('./api.js').Ticket} Ticket */
/** @typedef {import('./frames.js').Frame} Frame */
/** @typedef {import('./reading.js').Transport} Transport */
/** @typedef {import('./reading.js').StartRequest} StartRequest */
/** @typedef {import('./reading.js').FrameListener} FrameListener */
/** @typedef {import('./reading.js').Reading} Reading */
/** @typedef {import('./reading.js').StreamListener} StreamListener */
/** @typedef {import('./reading.js').CancelReport} CancelReport */
export declare const SUBPROTOCOL = "jarvis-stream.v1";
/**
 * One WebSocket that carries any number of answers.
 *
 * The socket is opened by `connect()` and by whatever needs it, and is opened anew after it died.
 * Stream ids are used here as addresses only: which reader a frame is for.
 *
 * @implements {Transport}
 */
export declare class WebSocketTransport implements Transport {
    #private;
    /**
     * @param {object} [options]
     * @param {string | URL} [options.base] where the server is, as http(s)
     * @param {typeof globalThis.WebSocket} [options.WebSocket]
     * @param {() => Promise<string | Ticket>} [options.getTicket] the credential of one socket, for a
     *   server with sign-in: a browser sends no headers with a handshake
     * @param {() => Promise<Ticket>} [options.renewTicket] one of the next sign-in. It is called before
     *   the sign-in of an open socket expires
     * @param {() => void} [options.onLost] an open socket died
     * @param {number} [options.handshakeTimeout]
     * @param {number} [options.pingTimeout]
     * @param {() => number} [options.now] milliseconds since the epoch
     */
    constructor({ base, WebSocket, getTicket, renewTicket, onLost, handshakeTimeout, pingTimeout, now, }?: {
        base?: string | URL;
        WebSocket?: typeof globalThis.WebSocket;
        getTicket?: () => Promise<string | Ticket>;
        renewTicket?: () => Promise<Ticket>;
        onLost?: () => void;
        handshakeTimeout?: number;
        pingTimeout?: number;
        now?: () => number;
    });
    /** Resolves when the socket is open; rejects with `ConnectionLost`. */
    connect(): Promise<void>;
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
    /**
     * @param {string} streamId
     * @returns {Promise<CancelReport>}
     */
    cancel(streamId: string): Promise<CancelReport>;
    /**
     * Watches a session on this socket, and on every one that comes after it.
     *
     * @param {string} sessionId
     * @param {StreamListener} onStream
     */
    watch(sessionId: string, onStream: StreamListener): void;
    /** @param {string} sessionId */
    unwatch(sessionId: string): void;
    /**
     * Makes sure that an open socket is alive: one that slept, or whose network has changed, may be
     * dead without knowing it. Anything that comes is a sign of life; if nothing has come for this
     * long we ask for one (`ping`), and let go of a socket that stays silent.
     *
     * @param {number} silence milliseconds
     */
    check(silence: number): Promise<void>;
    close(): void;
}
export type Route = {
    onFrame: FrameListener;
    /**
     * the seq of the frame that was asked for first
     */
    first: number;
    /**
     * it has come: the server knows the stream
     */
    answered: boolean;
    /**
     * ends the reading; only the first call counts
     */
    settle: (error?: unknown) => void;
};
