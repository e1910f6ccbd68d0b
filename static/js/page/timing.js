import { formatCount, formatDuration, formatRate } from './format.js'

/** @typedef {import('../message.js').Message} Message */

/** @type {Record<string, string>} the words of `finish_reason`, for people */
const reasons = {
  stop: 'finished by itself',
  length: 'ended at the length limit',
  content_filter: 'ended by the content filter',
  tool_calls: 'ended with tool calls',
  cancelled: 'stopped',
  superseded: 'replaced by a newer message',
  shutdown: 'ended with the server',
}

/**
 * How long an answer takes or took, and how fast it came: `3.2 s · 48 tokens/s`. As long as the
 * model's own count is not known, only pieces can be counted: one may hold several tokens.
 *
 * @param {Message} answer
 * @param {number | null} now ms since the epoch; null: it has ended
 * @returns {string} empty: nothing is known
 */
export function timingOf({ created_at, started_at, ended_at, tokens, usage }, now) {
  const end = now ?? ended_at
  if (created_at === null || end === null) return ''
  const counted = now === null ? usage?.completion_tokens : undefined
  const isCounted = typeof counted === 'number'
  const isTimed = started_at !== null
  const ms = isTimed ? end - started_at : 0
  const visible = isCounted ? counted - reasoningTokens(usage) : tokens
  return [
    formatDuration(end - created_at),
    isTimed ? formatRate(visible, ms, isCounted ? 'tokens' : 'pieces') : null,
    isCounted ? formatCount(counted, 'token') : null,
  ]
    .filter((part) => part !== null)
    .join(' · ')
}

/**
 * The tokens that were spent before the first visible one.
 *
 * @param {Message['usage']} usage
 */
function reasoningTokens(usage) {
  const details = /** @type {{reasoning_tokens?: unknown} | null | undefined} */ (
    usage?.completion_tokens_details
  )
  const count = details?.reasoning_tokens
  return typeof count === 'number' ? count : 0
}

/**
 * The same at length, with how it ended.
 *
 * @param {Message} answer that has ended
 * @returns {string}
 */
export function endingOf({ finish_reason, trace_id }) {
  const lines = []
  if (finish_reason) lines.push(`Finish reason: ${reasons[finish_reason] ?? finish_reason}`)
  if (trace_id) lines.push(`Trace id: ${trace_id}`)
  return lines.join('\n')
}
