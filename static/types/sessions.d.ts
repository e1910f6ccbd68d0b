export type SessionEntry = {
    session_id: string;
    title: string;
    /**
     * ISO 8601
     */
    created_at: string;
    /**
     * ISO 8601
     */
    updated_at: string;
    message_count: number;
    /**
     * In a search, some text of the session around a word of the query.
     */
    snippet?: string;
    /**
     * an answer is being made now
     */
    active?: boolean;
};
export type SessionsSnapshot = {
    /**
     * newest first
     */
    sessions: readonly Readonly<SessionEntry>[];
    /**
     * what is searched for; empty: nothing, all are listed
     */
    query: string;
    loading: boolean;
    /**
     * what failed last: a sentence for people
     */
    error: string | null;
    /**
     * the server has more of them: `more()` brings them
     */
    more: boolean;
};
/** The list of all conversations, or of those that a search finds. */
export declare class SessionList {
    #private;
    /**
     * @param {object} [options]
     * @param {string | URL} [options.base] where the server is
     * @param {typeof globalThis.fetch} [options.fetch]
     * @param {(session_id: string) => void} [options.onRemoved] it is deleted at the server
     */
    constructor({ base, fetch, onRemoved }?: {
        base?: string | URL;
        fetch?: typeof globalThis.fetch;
        onRemoved?: (session_id: string) => void;
    });
    getSnapshot: () => Readonly<SessionsSnapshot>;
    /**
     * @param {() => void} listener called after every change
     * @returns {() => void} unsubscribe
     */
    subscribe: (listener: () => void) => () => void;
    /**
     * Brings the list up to date, as far as it is shown. From the first time on the client does so by
     * itself when a conversation has changed.
     *
     * @returns {Promise<void>} never rejects: `error` says what failed
     */
    load(): Promise<void>;
    /**
     * Lists only what has these words in its title or its messages.
     *
     * @param {string} query empty: all again
     * @returns {Promise<void>}
     */
    search(query: string): Promise<void>;
    /**
     * Brings the next page, if there is one.
     *
     * @returns {Promise<void>}
     */
    more(): Promise<void>;
    /**
     * Gives a conversation another title; it is shown at once, and taken back if the server refuses.
     *
     * @param {string} session_id
     * @param {string} title
     * @returns {Promise<boolean>} whether it was done; never rejects
     */
    rename(session_id: string, title: string): Promise<boolean>;
    /**
     * Deletes a conversation; an answer that is being made in it is stopped first.
     *
     * @param {string} session_id
     * @returns {Promise<boolean>} whether it is gone; never rejects
     */
    remove(session_id: string): Promise<boolean>;
    /**
     * Where a conversation can be downloaded as a file.
     *
     * @param {string} session_id
     * @param {'md' | 'json'} format
     * @returns {string}
     */
    exportUrl(session_id: string, format: 'md' | 'json'): string;
    /** A conversation has changed. Requests at once are one, and one more for what came meanwhile. */
    touch(): void;
}
