/**
 * A stretch of time, for people: `3.2 s`, `14 s`, `2 min 5 s`, `1 h 3 min`.
 *
 * @param {number} ms milliseconds
 */
export function formatDuration(ms) {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  const minutes = Math.round(whole / 60)
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/**
 * How fast something comes: `48 tokens/s`. Null: there is too little of it to tell.
 *
 * @param {number} count
 * @param {number} ms milliseconds they took
 * @param {'tokens' | 'pieces'} noun
 */
export function formatRate(count, ms, noun) {
  if (count < 3 || ms < 300) return null
  const rate = (count * 1000) / ms
  return `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} ${noun}/s`
}

/** @type {Map<string | undefined, {short: Intl.DateTimeFormat, long: Intl.DateTimeFormat}>} */
const clocks = new Map()

/**
 * A time of day in the reader's language, short (`14:32`) and long (with the date).
 *
 * @param {number} time milliseconds since the epoch
 * @param {string} [language]
 */
export function formatTime(time, language) {
  // To make one costs more than to use it a hundred times.
  const clock = clocks.get(language) ?? {
    short: new Intl.DateTimeFormat(language, { timeStyle: 'short' }),
    long: new Intl.DateTimeFormat(language, { dateStyle: 'full', timeStyle: 'medium' }),
  }
  clocks.set(language, clock)
  return { short: clock.short.format(time), long: clock.long.format(time) }
}

/**
 * A number with its noun: `1 tool call`, `3 tool calls`.
 *
 * @param {number} count
 * @param {string} noun
 */
export function formatCount(count, noun) {
  return `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`
}

/**
 * The locale of all dates and times: the page is in English, so they are, too, as the reader's own
 * English has them.
 *
 * @param {readonly string[]} [languages] of the reader, the preferred one first
 */
export function pageLocale(languages = globalThis.navigator?.languages ?? []) {
  return languages.find((language) => /^en\b/i.test(language)) ?? 'en-GB'
}
