import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  SentenceReader,
  Speaker,
  plainOf,
  splitSentences,
} from '../../../static/js/page/speech.js'

const TEXT = `# A heading

The first sentence. The second one,
over two lines! And **a third**, with a [link](https://example.org/) and \`code\`?

- an item
- [x] another. With two sentences.

| a | b |
|---|---|
| 1 | 2 |

\`\`\`python
print("Not. A sentence!")

# nor this
\`\`\`

~~~
no language
~~~
> The end, after a quotation. 日本語。終わり`

const SENTENCES = [
  'A heading',
  'The first sentence.',
  'The second one, over two lines!',
  'And a third, with a link and code?',
  'an item',
  'another.',
  'With two sentences.',
  'a, b',
  '1, 2',
  'Code block in python.',
  'Code block.',
  'The end, after a quotation.',
  '日本語。',
  '終わり',
]

test('a text is read sentence by sentence, and of code only the language', () => {
  assert.deepEqual(new SentenceReader().read(TEXT, true), SENTENCES)
})

test('however it grows, each sentence is read once, and only when it is whole', () => {
  for (const step of [1, 2, 3, 7, 50]) {
    const reader = new SentenceReader()
    const said = []
    for (let end = step; end < TEXT.length + step; end += step) {
      said.push(...reader.read(TEXT.slice(0, end)))
      for (const sentence of said) assert.ok(SENTENCES.includes(sentence), `${step}: ${sentence}`)
    }
    said.push(...reader.read(TEXT, true))
    assert.deepEqual(said, SENTENCES, `in steps of ${step}`)
  }
})

test('code that is never closed is not read aloud', () => {
  const reader = new SentenceReader()
  assert.deepEqual(reader.read('Look.\n\n````js\nlet a.\n```\nlet b.\n', true), [
    'Look.',
    'Code block in js.',
  ])
})

test('a sentence is found without the help of Intl as well', () => {
  for (const text of ['One. Two!  Three? ', 'No end', '', '他。"Yes." So', '...']) {
    assert.equal(splitSentences(text, null).join(''), text)
  }
  assert.deepEqual(splitSentences('One. Two! Three', null), ['One. ', 'Two! ', 'Three'])
})

test('signs of markdown are not read aloud, and names with lines in them are', () => {
  const plain = [
    ['1. **First**, *second* and ~~third~~', 'First, second and third'],
    ['![a picture](https://example.org/a.png "title") of it', 'a picture of it'],
    ['snake_case_name stays, _this_ does not', 'snake_case_name stays, this does not'],
    ['2 * 3 is 6', '2 * 3 is 6'],
    ['---', ''],
    ['|:--|--:|', ''],
    ['> > quoted', 'quoted'],
  ]
  for (const numbers of ['~5 km', '1~2', '2*3 = 6', '2**10', '1~~2']) {
    assert.equal(plainOf(numbers), numbers)
  }
  assert.equal(plainOf('**5** ~~6~~ *7*'), '5 6 7')
  for (const [markdown, words] of plain) assert.equal(plainOf(markdown), words)
})

/** As much of an element as a live region needs. */
class FakeElement {
  children = []
  textContent = ''

  append(child) {
    this.children.push(child)
    child.remove = () => this.children.splice(this.children.indexOf(child), 1)
  }

  get childElementCount() {
    return this.children.length
  }

  get firstElementChild() {
    return this.children[0]
  }
}

/** A speaker, what it has said, and its pauses. */
function speaker() {
  globalThis.document = { createElement: () => new FakeElement() }
  const polite = new FakeElement()
  const alarm = new FakeElement()
  const pauses = []
  const said = []
  const speaks = new Speaker(polite, alarm, (run) => pauses.push(run))
  const pause = () => {
    const last = polite.children.at(-1)
    pauses.shift()?.()
    if (polite.children.at(-1) !== last) said.push(polite.children.at(-1).textContent)
  }
  return { speaks, said, alarm, polite, pause, pauses }
}

const message = (content, status = 'streaming') => ({ id: 'a', content, status })

test('what comes in a pause is said together after it, and nothing twice', () => {
  const { speaks, said, pause, pauses, polite } = speaker()
  speaks.hear(message(''))
  speaks.hear(message('One. Two. Thr'))
  assert.equal(pauses.length, 1)
  pause()
  assert.deepEqual(said, ['One. Two.'])
  speaks.hear(message('One. Two. Three. Four'))
  pause()
  speaks.end(message('One. Two. Three. Four', 'complete'), 'Answer finished')
  pause()
  assert.deepEqual(said, ['One. Two.', 'Three.', 'Four Answer finished.'])
  for (let times = 0; times < 9; times += 1) {
    speaks.hear({ ...message(''), id: `${times}` })
    speaks.end({ ...message('More.', 'stopped'), id: `${times}` }, 'Stopped')
    pause()
  }
  assert.equal(said.at(-1), 'More. Stopped.')
  assert.equal(polite.children.length, 3)
})

test('what was there before we came is not said, and of another conversation nothing', () => {
  const { speaks, said, alarm, pause } = speaker()
  speaks.hear(message('Old. Older. Ne'))
  speaks.hear(message('Old. Older. New. Ne'))
  pause()
  assert.deepEqual(said.splice(0), ['New.'])
  speaks.hear(message('Old. Older. New. Newest. Ev'))
  speaks.clear()
  pause()
  speaks.end(message('Old.', 'complete'), 'Answer finished')
  speaks.end({ ...message('', 'error'), id: 'unheard' }, 'It failed.')
  pause()
  assert.deepEqual(said, [])
  assert.equal(alarm.textContent, '')
})

test('a failure is said at once', () => {
  const { speaks, alarm } = speaker()
  speaks.hear(message('Half'))
  speaks.end(message('Half', 'error'), 'No more.')
  assert.equal(alarm.textContent, 'The answer failed: No more.')
})
