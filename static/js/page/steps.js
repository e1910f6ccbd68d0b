import { formatCount, formatDuration } from './format.js'

/** @typedef {import('../message.js').Message} Message */
/** @typedef {import('../message.js').Activity} Activity */

/**
 * What an agent did before or between speaking, as people see it: a thought, or a tool call from
 * its beginning to its end.
 *
 * @typedef {object} Step
 * @property {'thought' | 'tool' | 'result'} kind a `result` belongs to one of several calls
 * @property {string} name
 * @property {string} detail empty: there is none
 * @property {'running' | 'done' | 'failed'} state
 * @property {number | null} duration milliseconds; null: not known, or it is still running
 */

/**
 * The steps of an answer. A tool call that is announced first and ended later is one step.
 *
 * A `call_id` tells which call an end belongs to; without one, the name does. Where several calls of
 * that name run, their results stand for themselves: a result never stands beside the wrong call.
 *
 * @param {readonly Activity[]} activities
 * @param {boolean} isOpen whether the answer is still being made
 * @returns {Step[]}
 */
export function stepsOf(activities, isOpen) {
  /** @type {Step[]} */
  const steps = []
  /** @type {Call[]} the announced calls whose end has not come */
  let running = []
  for (const [index, activity] of activities.entries()) {
    const isTool = activity.status === 'tool'
    const isLast = isOpen && index === activities.length - 1
    const ended = activity.state === 'done' || activity.state === 'error'
    const calls = isTool && ended ? running.filter((call) => isEndOf(activity, call)) : []
    if (calls.length === 1 && calls[0]) {
      finish(calls[0].step, activity, calls[0])
      running = running.filter((call) => call !== calls[0])
      continue
    }
    const begins = isTool && activity.state === 'running'
    const step = stepOf(activity, ended ? false : isLast || (begins && isOpen))
    steps.push(step)
    if (ended) finish(step, activity, null)
    if (begins) running.push({ step, activity, results: 0 })
    if (calls.length > 1) {
      step.kind = 'result'
      step.duration = activity.duration_ms ?? null
      running = countResult(calls, running)
    }
  }
  return steps
}

/**
 * A tool call that was announced.
 *
 * @typedef {{step: Step, activity: Activity, results: number}} Call `results`: how many results came
 *   that may be its own
 */

/**
 * @param {Activity} end
 * @param {Call} call
 */
const isEndOf = (end, { activity }) =>
  end.call_id === undefined
    ? end.name === activity.name
    : end.call_id === activity.call_id

/**
 * One of several calls has ended, and which one is not known. All of them have ended when as many
 * results have come.
 *
 * @param {readonly Call[]} calls
 * @param {Call[]} running
 */
function countResult(calls, running) {
  for (const call of calls) call.results += 1
  if (calls.some(({ results }) => results < calls.length)) return running
  for (const { step } of calls) step.state = 'done'
  return running.filter((call) => !calls.includes(call))
}

/**
 * @param {Activity} activity
 * @param {boolean} isRunning
 * @returns {Step}
 */
function stepOf({ status, name, detail, started_at, ended_at }, isRunning) {
  const isTimed = started_at !== null && ended_at !== null
  return {
    kind: status === 'tool' ? 'tool' : 'thought',
    name: status === 'tool' ? (name ?? 'Tool') : (name ?? sentenceCase(status)),
    detail: detail ?? '',
    state: isRunning ? 'running' : 'done',
    duration: isTimed && !isRunning ? Math.max(0, ended_at - started_at) : null,
  }
}

/**
 * @param {Step} step
 * @param {Activity} end
 * @param {Call | null} call null: it was not announced
 */
function finish(step, { state, detail, duration_ms, started_at }, call) {
  const asked = step.detail
  step.state = state === 'error' ? 'failed' : 'done'
  if (detail && asked && detail !== asked) step.detail = `${asked}: ${detail}`
  else if (detail) step.detail = detail
  const begun = call?.activity.started_at ?? null
  if (duration_ms !== undefined) step.duration = duration_ms
  else if (begun !== null && started_at !== null) step.duration = Math.max(0, started_at - begun)
}

/** @param {string} word `some_status` */
function sentenceCase(word) {
  const words = word.replaceAll('_', ' ').trim()
  return words.charAt(0).toUpperCase() + words.slice(1)
}

/**
 * A line for all of them.
 *
 * @param {readonly Step[]} steps
 * @returns {string}
 */
export function summaryOf(steps) {
  const running = steps.find(({ state }) => state === 'running')
  if (running) return running.kind !== 'thought' ? `Using ${running.name}` : 'Thinking'
  const calls = steps.filter(({ kind }) => kind === 'tool').length
  const count = calls > 0 ? formatCount(calls, 'tool call') : formatCount(steps.length, 'step')
  const total = steps.reduce((sum, { duration }) => sum + (duration ?? 0), 0)
  return total > 0 ? `${count} · ${formatDuration(total)}` : count
}

/** The steps of an answer in the page: open while it is made, folded up afterwards. */
export class StepsView {
  #details
  #summary
  #list
  #template
  /** @type {readonly Activity[] | null} */
  #activities = null
  #isOpen = false

  /**
   * @param {HTMLDetailsElement} details
   * @param {HTMLTemplateElement} template of a step
   */
  constructor(details, template) {
    this.#details = details
    this.#summary = /** @type {HTMLElement} */ (details.querySelector('[data-part="summary"]'))
    this.#list = /** @type {HTMLElement} */ (details.querySelector('[data-part="steps"]'))
    this.#template = template
  }

  /**
   * @param {readonly Activity[]} activities
   * @param {boolean} isOpen whether the answer is still being made
   */
  show(activities, isOpen) {
    if (activities === this.#activities && isOpen === this.#isOpen) return
    const wasOpen = this.#isOpen
    this.#activities = activities
    this.#isOpen = isOpen
    const steps = stepsOf(activities, isOpen)
    this.#details.hidden = steps.length === 0
    if (isOpen !== wasOpen) this.#details.open = isOpen
    this.#summary.textContent = summaryOf(steps)
    while (this.#list.children.length > steps.length) this.#list.lastElementChild?.remove()
    for (const [index, step] of steps.entries()) {
      const item = this.#list.children[index] ?? this.#list.appendChild(this.#newItem())
      this.#showStep(/** @type {HTMLElement} */ (item), step)
    }
  }

  #newItem() {
    const copy = /** @type {DocumentFragment} */ (this.#template.content.cloneNode(true))
    return /** @type {HTMLElement} */ (copy.firstElementChild)
  }

  /**
   * @param {HTMLElement} item
   * @param {Step} step
   */
  #showStep(item, { kind, name, detail, state, duration }) {
    item.dataset.kind = kind
    item.dataset.state = state
    item.querySelector('use')?.setAttribute('href', `#icon-${iconOf(kind, state)}`)
    write(item, 'name', name)
    write(item, 'detail', detail)
    write(item, 'failed', state === 'failed' ? 'failed' : '')
    write(item, 'duration', duration === null ? '' : formatDuration(duration))
  }
}

/**
 * @param {HTMLElement} item
 * @param {string} part
 * @param {string} text
 */
function write(item, part, text) {
  const element = item.querySelector(`[data-part="${part}"]`)
  if (element && element.textContent !== text) element.textContent = text
}

/**
 * @param {Step['kind']} kind
 * @param {Step['state']} state
 */
function iconOf(kind, state) {
  if (state === 'failed') return 'alert'
  return kind === 'result' ? 'tool' : kind
}
