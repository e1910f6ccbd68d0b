import { ChatClient } from './client.js';
export type ReactNode = import('react').ReactNode;
export type Message = import('./message.js').Message;
export type SendOptions = import('./store.js').SendOptions;
export type Chat = {
    /**
     * oldest first; an unchanged message is the same object in
     * the next render. Its `status` says how far it is: `thinking`, `streaming`, `complete`, …
     */
    messages: readonly Message[];
    /**
     * an answer is being made
     */
    isLoading: boolean;
    /**
     * why the last answer failed, or what failed since: a sentence for
     * people. The next `sendMessage` clears it
     */
    error: string | null;
    /**
     * the server has older messages than these
     */
    hasOlder: boolean;
    /**
     * brings in the page of messages before the oldest one.
     * Resolves when it is there, or could not be had; never rejects
     */
    loadOlder: () => Promise<void>;
    /**
     * asks; an answer
     * still being made is replaced, unless `options` say otherwise. Resolves when the answer has
     * ended, however it did; never rejects
     */
    sendMessage: (prompt: string, options?: SendOptions) => Promise<void>;
    /**
     * stops the answer, what came of it stays. Resolves when
     * the server says that it has stopped; never rejects
     */
    stopStream: () => Promise<void>;
    /**
     * for everything else
     */
    client: ChatClient;
};
export type ChatProviderProps = {
    /**
     * one of your own: it is connected here, and yours to close
     */
    client?: ChatClient;
    /**
     * where the server is; default: where the page came from. Another
     * one is another client, and all below begins anew
     */
    base?: string | URL;
    /**
     * the conversation to show; default: a new one
     */
    sessionId?: string;
    children?: ReactNode;
};
/**
 * Gives a chat to all components below. Without a `client` it makes one, and closes it when it is
 * unmounted, which stops no answer: that goes on at the server, and is there when `sessionId` is
 * shown again.
 *
 * @param {ChatProviderProps} props
 * @returns {import('react').ReactElement}
 */
export declare function ChatProvider({ client, base, sessionId, children }: ChatProviderProps): import('react').ReactElement;
/**
 * The chat of the nearest `ChatProvider` above. Renders again whenever something changes.
 *
 * @returns {Readonly<Chat>}
 */
export declare function useChat(): Readonly<Chat>;
