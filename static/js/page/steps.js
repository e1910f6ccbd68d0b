import { formatCount, formatDuration } from './format.js'

/** @typedef {import('../message.js').Message} Message */
/** @typedef {import('../message.js').Activity} Activity */

/**
 * What an agent did before or between speaking, as people see it: a thought, or a tool call from
 * its beginning to its end.
 *
 * @typedef {object} Step
 * @property {'thought' | 'tool'} kind
 * @property {string} name
 * @property {string} detail empty: there is none
 * @property {'running' | 'done' | 'failed'} state
 * @property {number | null} duration milliseconds; null: not known, or it is still running
 */

/**
 * The steps of an answer. A tool that says first that it runs and then that it is done is one step.
 *
 * @param {readonly Activity[]} activities
 * @param {boolean} isOpen whether the answer is still being made
 * @returns {Step[]}
 */
export function stepsOf(activities, isOpen) {
  /** @type {Step[]} */
  const steps = []
  /** @type {Step | null} */
  let running = null
  for (const [index, activity] of activities.entries()) {
    const isTool = activity.status === 'tool'
    const isLast = isOpen && index === activities.length - 1
    const ended = activity.state === 'done' || activity.state === 'error'
    if (isTool && ended && running && running.name === activity.name) {
      finish(running, activity, steps)
      running = null
      continue
    }
    const step = stepOf(activity, isLast)
    if (ended) finish(step, activity, steps)
    else steps.push(step)
    running = isTool && activity.state === 'running' ? step : null
  }
  return steps
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
 * @param {Activity} activity that tells of its end
 * @param {Step[]} steps
 */
function finish(step, { state, detail, duration_ms }, steps) {
  const asked = step.detail
  step.state = state === 'error' ? 'failed' : 'done'
  if (detail && asked && detail !== asked) step.detail = `${asked}: ${detail}`
  else if (detail) step.detail = detail
  step.duration = duration_ms ?? step.duration
  if (!steps.includes(step)) steps.push(step)
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
  if (running) return running.kind === 'tool' ? `Using ${running.name}` : 'Thinking'
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
    item.querySelector('use')?.setAttribute('href', `#icon-${state === 'failed' ? 'alert' : kind}`)
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
