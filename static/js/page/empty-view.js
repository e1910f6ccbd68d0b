/** @typedef {import('../api.js').ServerInfo} ServerInfo */

/** @typedef {{title: string, prompt: string}} Example */

/** @type {readonly Example[]} */
const demoExamples = [
  { title: 'See what it can render', prompt: '/markdown' },
  { title: 'Watch it use tools', prompt: '/tools' },
  { title: 'Stop or interrupt a long answer', prompt: '/demo tps=40 length=2000' },
  { title: 'All that the demo can do', prompt: '/help' },
]

/** @type {readonly Example[]} */
const modelExamples = [
  { title: 'Explain something', prompt: 'Why is the sky blue, and why is a sunset red?' },
  { title: 'Write some code', prompt: 'Write a Python function that merges intervals.' },
  { title: 'Compare', prompt: 'Compare TCP and UDP in a table.' },
  { title: 'Plan', prompt: 'Plan a simple dinner for six, one of them vegan.' },
]

/** @param {string} testId */
const part = (testId) =>
  /** @type {HTMLElement} */ (document.querySelector(`[data-testid="${testId}"]`))

const UNKNOWN = 'This chat does not exist'

/** What a conversation shows that has not begun. */
export class EmptyView {
  #element = part('empty')
  #template = /** @type {HTMLTemplateElement} */ (document.getElementById('example'))
  #heading = part('empty-title').textContent ?? ''
  #onChoose

  /** @param {(prompt: string) => void} onChoose an example is to be sent */
  constructor(onChoose) {
    this.#onChoose = onChoose
  }

  /**
   * @param {boolean} isEmpty
   * @param {boolean} [isUnknown] the address names a conversation that the server does not have
   */
  show(isEmpty, isUnknown = false) {
    if (this.#element.hidden === isEmpty) this.#element.hidden = !isEmpty
    const heading = isUnknown ? UNKNOWN : this.#heading
    if (part('empty-title').textContent !== heading) part('empty-title').textContent = heading
    part('unknown').hidden = !isUnknown
  }

  /**
   * Who answers here, and what could be asked.
   *
   * @param {ServerInfo} info
   */
  introduce({ agent, why }) {
    part('agent').textContent = agent.is_model ? agent.name : `${agent.name}: no language model`
    const reason = why ? ` It answers because ${asClause(why)}.` : ''
    part('why').textContent = agent.is_model
      ? `${agent.name} answers here.`
      : `The ${agent.name} answers here: no language model, it plays back prepared text.${reason}`
    const examples = agent.is_model ? modelExamples : demoExamples
    part('examples').replaceChildren(...examples.map((example) => this.#button(example)))
  }

  /** @param {Example} example */
  #button({ title, prompt }) {
    const copy = /** @type {DocumentFragment} */ (this.#template.content.cloneNode(true))
    const button = /** @type {HTMLElement} */ (copy.querySelector('button'))
    for (const [name, text] of Object.entries({ title, prompt })) {
      button.querySelector(`[data-part="${name}"]`)?.append(text)
    }
    button.addEventListener('click', () => this.#onChoose(prompt))
    return copy
  }
}

/** @param {string} sentence */
const asClause = (sentence) =>
  sentence.replace(/\.\s*$/, '').replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase())
