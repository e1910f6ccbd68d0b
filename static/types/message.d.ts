export type Frame = import('./frames.js').Frame;
export type StoredMessage = import('./api.js').StoredMessage;
export type MessageStatus = 'thinking' | 'streaming' | 'complete' | 'stopped' | 'replaced' | 'interrupted' | 'error';
export type ActivityFields = {
    /**
     * `tool`, or another word of the agent's
     */
    status: string;
    /**
     * of the tool
     */
    name: string | null;
    detail: string | null;
    /**
     * of a tool, where the agent says it: `running`, `done` or `error`
     */
    state?: string;
    /**
     * of a tool that has ended, where the agent says it
     */
    duration_ms?: number;
    /**
     * of a tool call, where the agent names it: the same when it has ended
     */
    call_id?: string;
    /**
     * ms since the epoch; null: we were not there when it began
     */
    started_at: number | null;
    /**
     * when the next frame came; null: it goes on, or we cannot say
     */
    ended_at: number | null;
};
export type Activity = Readonly<ActivityFields>;
export type MessageError = Readonly<{
    code: string;
    error: string;
    retryable: boolean;
}>;
export type MessageFields = {
    id: string;
    role: 'user' | 'assistant';
    content: string;
    status: MessageStatus;
    /**
     * of the answer; a question has that of its answer
     */
    stream_id: string;
    trace_id: string | null;
    finish_reason: string | null;
    /**
     * what the agent has done besides speaking, oldest first
     */
    activities: readonly Activity[];
    /**
     * what it is doing now
     */
    activity: string | null;
    /**
     * in the queue, from 1; null: it does not wait
     */
    position: number | null;
    /**
     * false: the server could not keep the answer
     */
    saved: boolean;
    error: MessageError | null;
    /**
     * ms since the epoch, as all times here; null: not known
     */
    created_at: number | null;
    /**
     * of the first piece that was seen live
     */
    started_at: number | null;
    ended_at: number | null;
    /**
     * how many pieces were seen; 0 of an answer out of the history
     */
    tokens: number;
    /**
     * what the model counted
     */
    usage: Readonly<Record<string, unknown>> | null;
};
export type Message = Readonly<MessageFields>;
/**
 * @param {Partial<Message> & Pick<Message, 'role' | 'status' | 'stream_id'>} fields
 * @returns {Message}
 */
export declare function newMessage(fields: Partial<Message> & Pick<Message, 'role' | 'status' | 'stream_id'>): Message;
/**
 * @param {StoredMessage} stored
 * @param {Message['role']} role
 * @returns {Message}
 */
export declare function fromStored(stored: StoredMessage, role: Message['role']): Message;
/**
 * How an answer that we lost sight of really ended. What has been shown stays, where the server
 * has only a beginning of it.
 *
 * @param {Message} shown
 * @param {Message} kept
 * @returns {Message}
 */
export declare function reconciled(shown: Message, kept: Message): Message;
/**
 * What a frame changes of an answer.
 *
 * @param {Message} answer
 * @param {Frame} frame that was `next`
 * @param {number | null} now null: it may have happened long ago
 * @returns {Partial<Message>}
 */
export declare function changeBy(answer: Message, frame: Frame, now: number | null): Partial<Message>;
/**
 * What goes wrong on the way to an answer, as its error.
 *
 * @param {unknown} error
 * @param {string} sentence
 * @returns {MessageError}
 */
export declare function messageError(error: unknown, sentence: string): MessageError;
