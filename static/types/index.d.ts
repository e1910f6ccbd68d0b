/**
 * The browser client of jarvis_stream: plain ES modules, no build step, no dependencies. Browsers
 * and Node 20 or newer.
 *
 *     import { ChatClient } from '/static/js/index.js'
 *
 *     const client = new ChatClient()
 *     client.subscribe(() => console.log(client.getSnapshot().messages))
 *     client.connect()
 *     client.send('Hello')
 *
 * - `ChatClient`      one server: the conversation that is shown, the list of all, the connection
 * - `ChatStore`       one conversation, over a transport of your choice
 * - `handleStream`    the answer in one `fetch` response, as callbacks
 * - `FallbackTransport`, `WebSocketTransport`, `HttpTransport`  the ways to the server
 * - `judge` and its kin  the pure guard: which frame counts
 *
 * The React hook is apart, in `react.js`: it needs React.
 *
 * @typedef {import('./client.js').ClientOptions} ClientOptions
 * @typedef {import('./client.js').ClientSnapshot} ClientSnapshot
 * @typedef {import('./client.js').ClientEvents} ClientEvents
 * @typedef {import('./message.js').Message} Message
 * @typedef {import('./message.js').MessageStatus} MessageStatus
 * @typedef {import('./message.js').MessageError} MessageError
 * @typedef {import('./message.js').Activity} Activity
 * @typedef {import('./store.js').Snapshot} Snapshot
 * @typedef {import('./store.js').SendOptions} SendOptions
 * @typedef {import('./sessions.js').SessionEntry} SessionEntry
 * @typedef {import('./sessions.js').SessionsSnapshot} SessionsSnapshot
 * @typedef {import('./transport.js').Connection} Connection
 * @typedef {import('./transport.js').ConnectionState} ConnectionState
 * @typedef {import('./reading.js').Transport} Transport
 * @typedef {import('./reading.js').Reading} Reading
 * @typedef {import('./reading.js').StartRequest} StartRequest
 * @typedef {import('./reading.js').CancelReport} CancelReport
 * @typedef {import('./frames.js').Frame} Frame
 * @typedef {import('./guard.js').Verdict} Verdict
 * @typedef {import('./guard.js').View} View
 * @typedef {import('./api.js').ServerInfo} ServerInfo
 * @typedef {import('./api.js').StoredMessage} StoredMessage
 * @typedef {import('./api.js').StoredSession} StoredSession
 * @typedef {import('./stream.js').StreamHandle} StreamHandle
 * @typedef {import('./stream.js').StreamOptions} StreamOptions
 */
export type ClientOptions = import('./client.js').ClientOptions;
export type ClientSnapshot = import('./client.js').ClientSnapshot;
export type ClientEvents = import('./client.js').ClientEvents;
export type Message = import('./message.js').Message;
export type MessageStatus = import('./message.js').MessageStatus;
export type MessageError = import('./message.js').MessageError;
export type Activity = import('./message.js').Activity;
export type Snapshot = import('./store.js').Snapshot;
export type SendOptions = import('./store.js').SendOptions;
export type SessionEntry = import('./sessions.js').SessionEntry;
export type SessionsSnapshot = import('./sessions.js').SessionsSnapshot;
export type Connection = import('./transport.js').Connection;
export type ConnectionState = import('./transport.js').ConnectionState;
export type Transport = import('./reading.js').Transport;
export type Reading = import('./reading.js').Reading;
export type StartRequest = import('./reading.js').StartRequest;
export type CancelReport = import('./reading.js').CancelReport;
export type Frame = import('./frames.js').Frame;
export type Verdict = import('./guard.js').Verdict;
export type View = import('./guard.js').View;
export type ServerInfo = import('./api.js').ServerInfo;
export type StoredMessage = import('./api.js').StoredMessage;
export type StoredSession = import('./api.js').StoredSession;
export type StreamHandle = import('./stream.js').StreamHandle;
export type StreamOptions = import('./stream.js').StreamOptions;
export { getInfo, getSession, getSessionMessages, signIn, signOut } from './api.js';
export { ChatClient } from './client.js';
export { BadLine, ConnectionLost, Refused } from './errors.js';
export { isTerminal } from './frames.js';
export { giveUp, judge, nowhere, precedes, read, take } from './guard.js';
export { newId } from './ids.js';
export { LineParser, parseLines, readFrames } from './lines.js';
export { SessionList } from './sessions.js';
export { ChatStore } from './store.js';
export { createStreamHandler, handleStream } from './stream.js';
export { FallbackTransport } from './transport.js';
export { HttpTransport } from './transport-http.js';
export { WebSocketTransport } from './transport-ws.js';
