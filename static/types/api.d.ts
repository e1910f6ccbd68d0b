export type StoredMessage = {
    id: string;
    role: string;
    content: string;
    /**
     * `complete`, `streaming`, `cancelled`, `superseded`, `error`,
     * `interrupted`
     */
    status: string;
    /**
     * of the answer; a question has that of its answer
     */
    stream_id: string;
    /**
     * of the answer; a later turn of a session has a higher one
     */
    epoch?: number;
    /**
     * ISO 8601
     */
    created_at: string;
    /**
     * of an answer
     */
    ended_at?: string;
    /**
     * of an answer
     */
    trace_id?: string;
    finish_reason?: string;
    /**
     * of an answer that failed
     */
    error?: {
        code: string;
        error: string;
        retryable: boolean;
    };
    /**
     * what the model counted
     */
    usage?: Record<string, unknown>;
};
export type StoredSession = {
    session_id: string;
    /**
     * oldest first
     */
    messages: StoredMessage[];
    active_stream: {
        stream_id: string;
        epoch: number;
        seq: number;
    } | null;
    /**
     * the `before` of the page with older messages; null: there are none
     */
    next?: number | null;
};
export type PageOptions = {
    /**
     * only turns with a lower epoch: `next` of another page
     */
    before?: number;
    /**
     * so many turns at most, each of them two messages
     */
    limit?: number;
};
export type ServerInfo = {
    /**
     * who answers
     */
    agent: {
        name: string;
        is_model: boolean;
    };
    /**
     * a sentence why the demo answers; null for any other agent
     */
    why?: string | null;
    version: string;
    protocol: number;
    limits?: {
        max_prompt_chars: number;
    };
    /**
     * how one says who one is; `token`: see `signIn`
     */
    auth?: 'none' | 'token' | 'custom';
    /**
     * who we are to it, when it knows
     */
    principal?: string;
};
export type ServerOptions = {
    base?: string | URL;
    fetch?: typeof globalThis.fetch;
};
/**
 * A message as the server's history keeps it.
 *
 * @typedef {object} StoredMessage
 * @property {string} id
 * @property {string} role
 * @property {string} content
 * @property {string} status `complete`, `streaming`, `cancelled`, `superseded`, `error`,
 *   `interrupted`
 * @property {string} stream_id of the answer; a question has that of its answer
 * @property {number} [epoch] of the answer; a later turn of a session has a higher one
 * @property {string} created_at ISO 8601
 * @property {string} [ended_at] of an answer
 * @property {string} [trace_id] of an answer
 * @property {string} [finish_reason]
 * @property {{code: string, error: string, retryable: boolean}} [error] of an answer that failed
 * @property {Record<string, unknown>} [usage] what the model counted
 */
/**
 * One page of a conversation.
 *
 * @typedef {object} StoredSession
 * @property {string} session_id
 * @property {StoredMessage[]} messages oldest first
 * @property {{stream_id: string, epoch: number, seq: number} | null} active_stream
 * @property {number | null} [next] the `before` of the page with older messages; null: there are none
 */
/**
 * Which messages of a conversation are wanted.
 *
 * @typedef {object} PageOptions
 * @property {number} [before] only turns with a lower epoch: `next` of another page
 * @property {number} [limit] so many turns at most, each of them two messages
 */
/**
 * @typedef {object} ServerInfo
 * @property {{name: string, is_model: boolean}} agent who answers
 * @property {string | null} [why] a sentence why the demo answers; null for any other agent
 * @property {string} version
 * @property {number} protocol
 * @property {{max_prompt_chars: number}} [limits]
 * @property {'none' | 'token' | 'custom'} [auth] how one says who one is; `token`: see `signIn`
 * @property {string} [principal] who we are to it, when it knows
 */
/** @typedef {{base?: string | URL, fetch?: typeof globalThis.fetch}} ServerOptions */
/**
 * Gets one page of a conversation; the newest one by default.
 *
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @param {PageOptions} [page]
 * @returns {Promise<StoredSession>}
 */
export declare function getSession(sessionId: string, server?: ServerOptions, page?: PageOptions): Promise<StoredSession>;
/**
 * Gets all messages of a conversation, page by page.
 *
 * @param {string} sessionId
 * @param {ServerOptions} [server]
 * @returns {Promise<StoredMessage[]>} oldest first
 */
export declare function getSessionMessages(sessionId: string, server?: ServerOptions): Promise<StoredMessage[]>;
/**
 * @param {ServerOptions} [server]
 * @returns {Promise<ServerInfo>}
 */
export declare function getInfo(server?: ServerOptions): Promise<ServerInfo>;
/**
 * Signs this browser in: a cookie that no script can read stands for the token from then on.
 *
 * Rejects with `Refused`, of the code `unauthorized` for a token that the server does not take.
 *
 * @param {string} token
 * @param {ServerOptions} [server]
 * @returns {Promise<{principal: string}>}
 */
export declare function signIn(token: string, server?: ServerOptions): Promise<{
    principal: string;
}>;
/**
 * Ends what `signIn` began, here and at the server.
 *
 * @param {ServerOptions} [server]
 * @returns {Promise<null>}
 */
export declare function signOut(server?: ServerOptions): Promise<null>;
export type Ticket = {
    ticket: string;
    /**
     * seconds until the sign-in that it was made from
     * expires; null: never
     */
    sign_in_expires_in?: number | null;
};
/**
 * The credential of one WebSocket.
 *
 * @typedef {object} Ticket
 * @property {string} ticket
 * @property {number | null} [sign_in_expires_in] seconds until the sign-in that it was made from
 *   expires; null: never
 */
/**
 * Gets a ticket, which opens one WebSocket in the place of a token, or renews the sign-in of an open
 * one: a browser sends no headers with a handshake.
 *
 * @param {ServerOptions} [server] whose `fetch` sends the token
 * @returns {Promise<Ticket>}
 */
export declare function requestTicket(server?: ServerOptions): Promise<Ticket>;
