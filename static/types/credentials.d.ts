/** @typedef {() => string | Promise<string>} TokenSource */
export type TokenSource = () => string | Promise<string>;
/**
 * The token that a client sends. A function is called for the first token, for the next one before a
 * sign-in expires, and after the server rejected the current one.
 */
export declare class Credentials {
    #private;
    /**
     * @param {string | TokenSource} source
     * @param {typeof globalThis.fetch} [fetch]
     */
    constructor(source: string | TokenSource, fetch?: typeof globalThis.fetch);
    /** Whether there can be another token than the current one. */
    get isRenewable(): boolean;
    /**
     * Gets the next token; requests at the same time share one call. Rejects with what the function
     * throws, or after 10 s without a token, and keeps the current token then.
     *
     * @returns {Promise<string>}
     */
    renew(): Promise<string>;
    /**
     * A `fetch` that sends the token, and once more with the next token if the server rejects it.
     *
     * @type {typeof globalThis.fetch}
     */
    fetch: typeof globalThis.fetch;
}
