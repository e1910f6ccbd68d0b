import { GrowingBlocks, blocksOf, htmlOf } from './markdown-blocks.js'
import { clean } from './markdown-clean.js'
import { CodeBlock, codeBlockOf } from './markdown-code.js'
import { setFormulas } from './markdown-formula.js'
import { morph, sourceOf } from './markdown-morph.js'

/** @typedef {import('./markdown-blocks.js').Block} Block */
/** @typedef {import('./markdown-blocks.js').Pieced} Pieced */

/**
 * How much of the time is spent on showing a growing text, at most: after a rendering of a
 * millisecond none begins for three.
 */
const REST = 3

/** The level of the heading that a message has. */
const MESSAGE_HEADING = 2

/**
 * So many blocks share an element. For every frame the browser looks at each of these that is out of
 * sight, and what is in sight it lays out whole: neither many nor large ones are good.
 */
const GROUP = 8

/**
 * A block in the page.
 *
 * @typedef {object} Slot
 * @property {Block} block
 * @property {Element} element
 */

/**
 * HTML to be made safe and put into the page.
 *
 * @typedef {object} Job
 * @property {string} html of one element
 * @property {(made: Element) => void} place takes that element, or what it holds
 */

/**
 * An answer in markdown, while it grows and when it is finished.
 *
 * Blocks that no further text can change are left alone, and the others keep what they can: a
 * selection, and what the reader has focused, survive. Nothing in the answer can run, load, or look like a part of the page: see
 * markdown-html.js and markdown-clean.js.
 */
export class MarkdownView {
  #element
  #blocks = new GrowingBlocks()
  /** @type {Slot[]} */
  #slots = []
  /** So many slots show frozen blocks. */
  #frozen = 0
  #content = ''
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  /** When the next rendering may begin. */
  #next = 0

  /** @param {HTMLElement} element whose children are this object's from now on */
  constructor(element) {
    this.#element = element
    element.classList.add('markdown')
    element.replaceChildren()
  }

  /**
   * Shows a text that may still grow, now or soon. To be called once per animation frame at most.
   *
   * @param {string} content the whole text so far
   */
  update(content) {
    this.#content = content
    if (this.#timer !== undefined) return
    const wait = this.#next - performance.now()
    if (wait <= 0) this.#render()
    else this.#timer = setTimeout(() => this.#render(), wait)
  }

  /**
   * Shows all of a growing text now, however soon after the last time.
   *
   * @param {string} content the whole text so far
   */
  catchUp(content) {
    this.#content = content
    clearTimeout(this.#timer)
    this.#render()
  }

  /**
   * Shows the whole text, lexed anew from its beginning. What stands there already stays; what a
   * definition of a link that came late has changed is made anew.
   *
   * @param {string} content
   */
  finish(content) {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#blocks = new GrowingBlocks() // should it ever grow again
    this.#frozen = 0
    this.#show(blocksOf(content), 0)
    for (const slot of this.#slots) settle(slot)
  }

  #render() {
    this.#timer = undefined
    const start = performance.now()
    if (!this.#blocks.update(this.#content)) {
      this.#blocks = new GrowingBlocks()
      this.#blocks.update(this.#content)
      this.#frozen = 0
    }
    const { frozen, tail } = this.#blocks
    this.#show([...frozen.slice(this.#frozen), ...tail], this.#frozen)
    for (const slot of this.#slots.slice(this.#frozen, frozen.length)) settle(slot)
    this.#frozen = frozen.length
    const end = performance.now()
    this.#next = end + REST * (end - start)
  }

  /**
   * @param {readonly Block[]} blocks
   * @param {number} from the slot of the first of them
   */
  #show(blocks, from) {
    /** @type {Job[]} */
    const jobs = []
    for (const [index, block] of blocks.entries()) this.#plan(from + index, block, jobs)
    this.#keep(from + blocks.length)
    for (const [index, made] of makeAll(jobs).entries()) jobs[index]?.place(made)
    nest(this.#element)
  }

  /**
   * @param {number} index
   * @param {Block} block
   * @param {Job[]} jobs
   */
  #plan(index, block, jobs) {
    const slot = this.#slots[index]
    if (!slot) {
      const element = document.createElement('p')
      this.#groupOf(index).append(element)
      this.#slots[index] = { block, element }
      this.#make(index, block, jobs)
    } else if (block.kind === 'code' && slot.block.kind === 'code') {
      const code = codeBlockOf(slot.element)
      const grown = block.language === slot.block.language && block.text.startsWith(slot.block.text)
      if (!code || !grown) this.#make(index, block, jobs)
      else if (block.text.length > slot.block.text.length) code.grow(block.text)
      slot.block = block
    } else if (isPieced(block) && isPieced(slot.block) && block.open === slot.block.open) {
      this.#planPieces(slot, slot.block.pieces, block, jobs)
    } else if (htmlOf(block) !== htmlOf(slot.block)) {
      this.#make(index, block, jobs)
    }
  }

  /** @param {number} index of a block */
  #groupOf(index) {
    const group = this.#element.children[Math.floor(index / GROUP)]
    if (group) return group
    const made = document.createElement('div')
    made.className = 'blocks'
    return this.#element.appendChild(made)
  }

  /** @param {number} count of blocks; those after them go */
  #keep(count) {
    for (const { element } of this.#slots.splice(count)) element.remove()
    while (this.#element.children.length > Math.ceil(count / GROUP)) {
      this.#element.lastElementChild?.remove()
    }
  }

  /**
   * Puts a block in the place of what is there.
   *
   * @param {number} index
   * @param {Block} block
   * @param {Job[]} jobs
   */
  #make(index, block, jobs) {
    const slot = this.#slots[index]
    if (!slot) return
    slot.block = block
    if (block.kind === 'code') {
      const { element } = new CodeBlock(block.language, block.text)
      slot.element.replaceWith(element)
      slot.element = element
    } else {
      const put = (/** @type {Element} */ made) => {
        slot.element = furnish(morph(slot.element, made))
      }
      jobs.push({ html: htmlOf(block), place: put })
    }
  }

  /**
   * Only those items or rows that are not there yet, or are there in another form.
   *
   * @param {Slot} slot
   * @param {readonly string[]} before
   * @param {Pieced} block
   * @param {Job[]} jobs
   */
  #planPieces(slot, before, block, jobs) {
    const { pieces } = block
    const first = pieces.findIndex((piece, index) => piece !== before[index])
    slot.block = block
    const holder = block.kind === 'table' ? slot.element.querySelector('tbody') : slot.element
    if (!holder) return
    const kept = first === -1 ? pieces.length : first
    if (kept === pieces.length) {
      while (holder.children.length > kept) holder.lastElementChild?.remove()
      return
    }
    const html = block.open + pieces.slice(kept).join('') + block.close
    jobs.push({
      html,
      place: (made) => {
        const source = block.kind === 'table' ? made.querySelector('tbody') : made
        for (const [index, piece] of [...(source?.children ?? [])].entries()) {
          const place = holder.children[kept + index]
          furnish(place ? morph(place, piece) : holder.appendChild(piece))
        }
        while (holder.children.length > pieces.length) holder.lastElementChild?.remove()
      },
    })
  }
}

/**
 * @param {Block} block
 * @returns {block is Pieced}
 */
const isPieced = (block) => block.kind === 'list' || block.kind === 'table'

/** @param {Slot} slot */
function settle({ element }) {
  codeBlockOf(element)?.settle()
  for (const code of element.querySelectorAll('.code')) codeBlockOf(code)?.settle()
}

/**
 * Makes each heading at most one level deeper than the one before it, for those who go by headings.
 * It looks as it was written.
 *
 * @param {Element} answer
 */
function nest(answer) {
  let last = MESSAGE_HEADING
  for (const heading of answer.querySelectorAll('h3, h4, h5, h6')) {
    const written = Number(heading.localName[1])
    last = Math.min(written, last + 1)
    const level = last === written ? null : String(last)
    if (heading.ariaLevel !== level) heading.ariaLevel = level
  }
}

/**
 * The elements of all jobs, made safe in one go.
 *
 * @param {readonly Job[]} jobs
 * @returns {Element[]}
 */
function makeAll(jobs) {
  if (jobs.length === 0) return []
  const made = [...clean(jobs.map(({ html }) => html).join('')).children]
  return made.length === jobs.length ? made : jobs.map(makeOne)
}

/** @param {Job} job */
function makeOne({ html }) {
  const { children } = clean(html)
  if (children.length === 1 && children[0]) return children[0]
  // One element comes of each block. Should that ever be otherwise, the source is shown.
  const shown = document.createElement('p')
  shown.textContent = html
  return shown
}

/**
 * Makes the code blocks and tables in an element, or the table that it is, complete.
 *
 * @param {Element} element
 * @returns {Element} what is in the page in its place
 */
function furnish(element) {
  for (const pre of element.querySelectorAll('pre:not(.code > pre)')) {
    const { language, text } = sourceOf(pre)
    pre.replaceWith(new CodeBlock(language, text).element)
  }
  setFormulas(element)
  for (const table of element.querySelectorAll('table:not(.table > table)')) makeScrollable(table)
  return element.localName === 'table' ? makeScrollable(element) : element
}

/**
 * Puts a wide table in a region of its own that scrolls, also by the keyboard.
 *
 * @param {Element} table
 */
function makeScrollable(table) {
  const region = document.createElement('div')
  region.className = 'table'
  region.dir = 'auto'
  region.tabIndex = 0
  region.setAttribute('role', 'group')
  region.setAttribute('aria-label', 'Table')
  table.replaceWith(region)
  region.append(table)
  return region
}
