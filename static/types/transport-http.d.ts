import { ConnectionLost, Refused } from './errors.js';
export type Transport = import('./reading.js').Transport;
export type StartRequest = import('./reading.js').StartRequest;
export type FrameListener = import('./reading.js').FrameListener;
export type Reading = import('./reading.js').Reading;
export type CancelReport = import('./reading.js').CancelReport;
/**
 * Answers as the NDJSON body of an HTTP response.
 *
 * @implements {Transport}
 */
export declare class HttpTransport implements Transport {
    #private;
    /**
     * @param {object} [options]
     * @param {string | URL} [options.base]
     * @param {typeof globalThis.fetch} [options.fetch]
     * @param {() => number} [options.now] milliseconds since the epoch
     * @param {import('./open-responses.js').OpenResponses} [options.responses] with it, a reading rejects
     *   with `TurnOver` when too many are open
     */
    constructor({ base, fetch, now, responses }?: {
        base?: string | URL;
        fetch?: typeof globalThis.fetch;
        now?: () => number;
        responses?: import('./open-responses.js').OpenResponses;
    });
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
    /** Whether the server can be reached: rejects with `ConnectionLost` if not. */
    probe(): Promise<void>;
    /**
     * Gives up answers on which nothing has come for this long, not even a heartbeat: a connection
     * that slept may be dead without knowing it. Their readings reject with `ConnectionLost`.
     *
     * @param {number} silence milliseconds
     */
    dropSilent(silence: number): void;
    /**
     * A call whose answer is one JSON value, of a type that the caller knows; null for a 204.
     *
     * @template T
     * @param {string} path
     * @param {RequestInit} [init]
     * @returns {Promise<T>}
     */
    call<T>(path: string, init?: RequestInit): Promise<T>;
    close(): void;
}
export type Open = {
    /**
     * when something came last, in milliseconds
     */
    heard: number;
    leave: () => void;
    drop: () => void;
};
/**
 * What a response that is not `ok` means. A gateway that cannot reach the server says so in words of
 * its own: then it is the connection that failed.
 *
 * @param {Response} response
 */
export declare function refusal(response: Response): Promise<ConnectionLost | Refused>;
