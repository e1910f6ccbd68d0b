/** @typedef {import('../message.js').Message} Message */

/** @type {Partial<Record<import('../message.js').MessageStatus, string>>} */
const statusNotes = {
  stopped: 'Stopped',
  replaced: 'Replaced by a newer message',
  interrupted: 'Interrupted: this is what had arrived',
}

/** @type {Record<string, string>} */
const reasonNotes = {
  length: 'Cut off at the length limit',
  content_filter: 'Cut off by the content filter',
}

/**
 * What has to be said below an answer, if anything.
 *
 * @param {Message} message
 * @returns {string | null}
 */
export function noteOf(message) {
  const unsaved = message.saved ? null : 'The server could not save this answer'
  const notes = [howItEnded(message), unsaved]
  return notes.filter((note) => note !== null).join('. ') || null
}

/** @param {Message} message */
function howItEnded({ status, finish_reason, error, trace_id }) {
  const trace = trace_id ? ` (trace ${trace_id})` : ''
  if (status === 'error') return `${error?.error ?? 'The answer failed.'}${trace}`
  if (status === 'complete') return reasonNotes[finish_reason ?? ''] ?? null
  const note = statusNotes[status]
  if (!note) return null
  return error ? `${note}. ${error.error}${trace}` : note
}
