const MINUTE = 60_000
const HOUR = 60 * MINUTE

/**
 * The groups of the list, newest first, each with how many days before today it begins.
 *
 * @type {readonly {name: string, days: number}[]}
 */
const groups = [
  { name: 'Today', days: 0 },
  { name: 'Yesterday', days: 1 },
  { name: 'Previous 7 days', days: 7 },
]

/**
 * @param {Date} now
 * @param {number} days
 */
const midnightBefore = (now, days) =>
  new Date(now.getFullYear(), now.getMonth(), now.getDate() - days).getTime()

/**
 * Under which heading a conversation stands.
 *
 * @param {number} time ms since the epoch
 * @param {Date} now
 * @returns {string}
 */
export function groupOf(time, now) {
  return groups.find(({ days }) => time >= midnightBefore(now, days))?.name ?? 'Older'
}

/**
 * When it was, as short as its group allows.
 *
 * @param {number} time ms since the epoch
 * @param {Date} now
 * @param {string} [locale] the reader's own when left out
 * @returns {string}
 */
export function shortTime(time, now, locale) {
  const ago = now.getTime() - time
  if (ago < MINUTE) return 'now'
  if (ago < HOUR) return `${Math.floor(ago / MINUTE)} min`
  const group = groupOf(time, now)
  if (group === 'Today') return `${Math.floor(ago / HOUR)} h`
  /** @type {Intl.DateTimeFormatOptions} */
  let format = { day: 'numeric', month: 'short' }
  if (group === 'Yesterday') format = { hour: 'numeric', minute: '2-digit' }
  else if (group === 'Previous 7 days') format = { weekday: 'short' }
  else if (new Date(time).getFullYear() !== now.getFullYear()) format = { ...format, year: 'numeric' }
  return new Intl.DateTimeFormat(locale, format).format(time)
}
