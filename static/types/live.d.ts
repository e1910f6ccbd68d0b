export type Reading = import('./reading.js').Reading;
/** @typedef {import('./reading.js').Reading} Reading */
/** An answer being made: the reading of its stream. */
export declare class Live {
    #private;
    stream_id: string;
    isTimed: boolean;
    stopping: boolean;
    /**
     * @param {string} stream_id
     * @param {boolean} isTimed its frames come when they are made: what happens, happens now
     */
    constructor(stream_id: string, isTimed: boolean);
    /** Resolves when a later start cannot overtake this one any more. */
    get accepted(): Promise<void>;
    /** Resolves when the reading is over. */
    get ended(): Promise<void>;
    /** @param {Reading} reading */
    attach(reading: Reading): void;
    end(): void;
    /** Stops reading as soon as the server has the request: a prompt that was sent is not lost. */
    leave(): void;
    leaveNow(): void;
}
