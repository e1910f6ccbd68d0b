/**
 * The words a stream speaks, as they come off the wire (protocol version 1).
 *
 * @typedef {object} Frame
 * @property {string} type `status`, `token`, `done` or `error`; clients ignore others
 * @property {string} stream_id
 * @property {string} trace_id
 * @property {number} epoch
 * @property {number} [seq] absent in replies to a WebSocket command
 * @property {string} [status]
 * @property {string} [name] of the tool that a `tool` status tells of
 * @property {string} [detail]
 * @property {string} [state] of a tool: `running`, `done` or `error`
 * @property {number} [duration_ms] of a tool that has ended
 * @property {string} [call_id] of a tool call, where the agent names it
 * @property {number} [position] of a `queued` status: how many are to go first, this one included
 * @property {string} [session_id]
 * @property {string} [replaces] of the first frame: it takes the place of that stream's turn, and of
 *   all that came after it
 * @property {string} [text]
 * @property {string} [finish_reason]
 * @property {Record<string, unknown>} [usage] of a `done` frame: what the model counted
 * @property {string} [superseded_by]
 * @property {string} [code]
 * @property {string} [error]
 * @property {boolean} [retryable]
 * @property {boolean} [saved] of a terminal frame; false: the history could not keep the answer
 */

/**
 * Whether nothing follows this frame in its stream.
 *
 * @param {{type?: string}} frame
 */
export function isTerminal(frame) {
  return frame.type === 'done' || frame.type === 'error'
}
