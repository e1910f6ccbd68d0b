/**
 * The ways it goes wrong, in the client.
 *
 *     Error
 *     ├── BadLine          a line that is no frame: broken JSON, broken UTF-8, too long
 *     ├── ConnectionLost   the connection ended before the answer did; resuming may help
 *     └── Refused          the server said no: a code and a sentence for people
 */
/** A line that is no frame. */
export declare class BadLine extends Error {
    name: string;
}
/** The connection failed, or ended before the terminal frame. */
export declare class ConnectionLost extends Error {
    name: string;
}
/** A response was closed so that another request gets its connection; the answer can be resumed soon. */
export declare class TurnOver extends ConnectionLost {
    name: string;
}
/** The server refused a request; `message` is its sentence, written for people. */
export declare class Refused extends Error {
    code: string;
    traceId: string | null;
    status: number | null;
    retry_after: number | null;
    name: string;
    /**
     * @param {string} code
     * @param {string} sentence
     * @param {string | null} [traceId]
     * @param {{status?: number, retry_after?: number}} [http] of a refusal over HTTP: its status, and
     *   after how many seconds it may be asked again
     */
    constructor(code: string, sentence: string, traceId?: string | null, { status, retry_after }?: {
        status?: number;
        retry_after?: number;
    });
    /** Whether the same request may be granted later. */
    get retryable(): boolean;
}
/**
 * Whether somebody aborted on purpose, which is no error to report.
 *
 * @param {unknown} error
 */
export declare function isAbort(error: unknown): boolean;
/**
 * What to tell people of it.
 *
 * @param {unknown} error
 */
export declare function sentence(error: unknown): string;
