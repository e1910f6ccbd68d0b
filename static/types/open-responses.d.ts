/** The most responses that all tabs hold open at a time: a browser has six HTTP/1.1 connections to a host. */
export declare const MAX_HELD = 3;
/**
 * Counts the responses that the tabs of a browser hold open, through a BroadcastChannel. Without one
 * (outside a browser) it knows only its own.
 */
export declare class OpenResponses {
    #private;
    /**
     * @param {string} host
     * @param {() => number} [now] milliseconds
     * @param {typeof globalThis.BroadcastChannel} [Channel]
     */
    constructor(host: string, now?: () => number, Channel?: typeof globalThis.BroadcastChannel);
    /** Whether so many are open that other requests may find no connection. */
    get isCrowded(): boolean;
    opened(): void;
    closed(): void;
}
