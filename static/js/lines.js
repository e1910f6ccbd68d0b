import { BadLine, ConnectionLost, isAbort } from './errors.js'

/** @typedef {import('./frames.js').Frame} Frame */

/** Longest line taken, in UTF-16 code units: far above any frame, far below a memory problem. */
export const MAX_LINE = 4 * 1024 * 1024

/**
 * Cuts bytes or text into frames, one JSON object per line.
 *
 * Lines end at `\n` only (U+2028 inside a text is text). Empty lines are heartbeats and skipped.
 * The generators must be run to their end; they throw `BadLine` at the first line that is no frame,
 * after having yielded the frames before it.
 */
export class LineParser {
  #decoder = new TextDecoder('utf-8', { fatal: true })
  #rest = ''
  #maxLine

  /** @param {{maxLine?: number}} [options] */
  constructor({ maxLine = MAX_LINE } = {}) {
    this.#maxLine = maxLine
  }

  /**
   * The frames that this chunk completes. Chunks may be cut anywhere, inside a character too.
   *
   * @param {Uint8Array | string} chunk
   * @returns {Generator<Frame, void, void>}
   */
  *push(chunk) {
    const text = typeof chunk === 'string' ? chunk : this.#decode(chunk)
    let start = 0
    for (let end; (end = text.indexOf('\n', start)) !== -1; start = end + 1) {
      yield* this.#take(text.slice(start, end))
    }
    this.#keep(text.slice(start))
  }

  /**
   * The frame in a last line that has no newline, if there is one.
   *
   * @returns {Generator<Frame, void, void>}
   */
  *end() {
    yield* this.#take(this.#decode())
  }

  /** @param {Uint8Array} [bytes] none: the end, where half a character is an error */
  #decode(bytes) {
    try {
      return this.#decoder.decode(bytes, { stream: bytes !== undefined })
    } catch (cause) {
      throw new BadLine('The server sent bytes that are not UTF-8.', { cause })
    }
  }

  /** @param {string} text */
  #keep(text) {
    this.#rest += text
    if (this.#rest.length > this.#maxLine) throw new BadLine('The server sent an endless line.')
  }

  /** @param {string} text the rest of a line */
  *#take(text) {
    this.#keep(text)
    const line = this.#rest
    this.#rest = ''
    if (line.trim() !== '') yield parseFrame(line)
  }
}

/**
 * @param {string} line
 * @returns {Frame}
 */
function parseFrame(line) {
  let value
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new BadLine('The server sent a line that is not JSON.', { cause })
  }
  if (typeof value !== 'object' || value === null || typeof value.type !== 'string') {
    throw new BadLine('The server sent a line that is no frame.')
  }
  return value
}

/**
 * The frames of a text that holds whole lines, such as one WebSocket message.
 *
 * @param {string} text
 * @returns {Generator<Frame, void, void>}
 */
export function* parseLines(text) {
  const parser = new LineParser()
  yield* parser.push(text)
  yield* parser.end()
}

/**
 * The frames of a response body. The reader stays the caller's: cancelling it ends the iteration.
 * Throws `ConnectionLost` when the connection breaks off, and lets an AbortError pass.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @param {() => void} [onBytes] something has come, be it a heartbeat
 * @returns {AsyncGenerator<Frame, void, void>}
 */
export async function* readFrames(reader, onBytes) {
  const parser = new LineParser()
  for (;;) {
    const { done, value } = await reader.read().catch((cause) => {
      throw isAbort(cause) ? cause : new ConnectionLost('The connection broke off.', { cause })
    })
    if (done) break
    onBytes?.()
    yield* parser.push(value)
  }
  yield* parser.end()
}
