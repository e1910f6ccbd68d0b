import assert from 'node:assert/strict'
import test from 'node:test'

import fc from 'fast-check'

import { GrowingBlocks, blocksOf, htmlOf } from '../../../static/js/page/markdown-blocks.js'

/** Pieces of markdown that change what stands before them, or wait for what comes after. */
const NASTY = [
  ...[
    'a',
    'word',
    ' ',
    '  ',
    '    ',
    '\t',
    '\n',
    '\n\n',
    '\n \n',
    '\n\n\n',
    '\r\n',
    '\r',
    '\u00a0',
  ],
  ...['# h', '#', '##  x #', '===', '---', '-', '=', '***', '* * *', '___', '+', '- - -'],
  ...['- a', '* b', '+ c', '1. d', '2) e', '10. f', '- [ ] g', '- [x] h', '-\n', '1.'],
  ...['> q', '>', '> > r', '> - s', '- > t', '> ```', '> # u', '- # v', '- ```', '1. ~~~'],
  ...['```', '````', '~~~', '```js', '``', '`', '``` x `', '~~~~', '    code', '  ```', '   ~~~'],
  ...['| a | b |', '|---|:-:|', '|-', 'a | b', '- | -', '1 | 2', '|', ':-', '-|-', '\\|'],
  ...[
    '[r]',
    '[r]: http://r.test',
    '[r]: /x',
    '[r]:',
    '[R]: <b c> "t"',
    '"title"',
    "'t",
    '(t)',
    '"',
    "'",
  ],
  ...['[s]: http://s.test (t', '[s]: http://s.test "t', '[r]: http://r.test\n"t'],
  ...[
    '[r][s]',
    '[s]: http://s.test (t',
    ')',
    '[x](http://x.test)',
    '[x](',
    '](',
    '![i](http://i.test/i)',
  ],
  ...[
    '**',
    '*',
    '_',
    '__',
    '~~',
    '~',
    '\\',
    '\\\n',
    '<',
    '>',
    '<b>',
    '</b>',
    '<br>',
    '<!--',
    '-->',
  ],
  ...[
    '<div>',
    '</div>',
    '<pre>',
    '<script>',
    '</script>',
    '<a href="',
    '&lt;',
    '&#0;',
    '&',
    '<http://y.test>',
  ],
  ...['$', '$$', '$$\n', '\\(', '\\)', '\\[', '\\]', '\\[\n', '$x*y$', '$$ a_1 $$', '\\$', '5$', '$5'],
  ...[
    'http://z.test/',
    'www.z.test',
    'm@z.test',
    '\u2028',
    '\u{1F469}\u200d\u{1F680}',
    '^',
    '[^1]',
    '[^1]: n',
  ],
]

const documents = fc
  .array(fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...NASTY) }, fc.constant('\n')), {
    maxLength: 40,
  })
  .map((pieces) => pieces.join(''))

/** Lines as people and models write them, each whole. */
const lines = fc
  .array(
    fc.tuple(
      fc.constantFrom('', '', '', '  ', '   ', '    ', '> ', '- ', '  - '),
      fc.constantFrom(...NASTY),
      fc.constantFrom('\n', '\n', '\n\n'),
    ),
    { maxLength: 25 },
  )
  .map((pieces) => pieces.flat().join(''))

/** With all definitions known from the start: the first one of a label counts. */
const defined = (/** @type {string} */ content) =>
  `[r]: http://first.test\n[s]: http://first.test\n[^1]: http://first.test\n\n${content}`

const text = fc.oneof(documents, lines)
const splits = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 })

/**
 * @param {string} content
 * @param {readonly number[]} at shares of its length
 */
const prefixes = (content, at) => [
  ...at
    .map((share) => Math.floor(share * content.length))
    .sort((a, b) => a - b)
    .map((end) => content.slice(0, end)),
  content,
]

const all = (/** @type {GrowingBlocks} */ growing) =>
  [...growing.frozen, ...growing.tail].map(htmlOf)

const RUNS = { numRuns: Number(process.env['RUNS'] ?? 2000) }

test('however it comes, it ends as when it comes whole', () => {
  fc.assert(
    fc.property(text.map(defined), splits, (content, at) => {
      const growing = new GrowingBlocks()
      for (const prefix of prefixes(content, at)) assert.ok(growing.update(prefix))
      const whole = new GrowingBlocks()
      whole.update(content)
      assert.deepEqual(all(growing), all(whole))
      // Once the last line is complete, nothing is held back any more.
      const ended = `${content}\n\n`
      growing.update(ended)
      assert.deepEqual(all(growing), blocksOf(ended).map(htmlOf))
    }),
    RUNS,
  )
})

test('a frozen block is what it is at the end', () => {
  fc.assert(
    fc.property(text.map(defined), splits, (content, at) => {
      const final = blocksOf(content).map(htmlOf)
      const growing = new GrowingBlocks()
      /** @type {string[]} */
      let before = []
      for (const prefix of prefixes(content, at)) {
        growing.update(prefix)
        const frozen = growing.frozen.map(htmlOf)
        assert.deepEqual(frozen.slice(0, before.length), before)
        before = frozen
      }
      assert.deepEqual(before, final.slice(0, before.length))
    }),
    RUNS,
  )
})

const TRAPS = {
  'a heading by underline': 'a\nb\n---\nc\n\nd\n===\n',
  'a list that becomes loose': '- a\n- b\n\n- c\n\nd\n',
  'a list that goes on after blank lines': '1. a\n\n\n   b\n\n\n2. c\n\nd\n',
  'a list broken by a rule': '- a\n- b\n- - -\n- c\n\n',
  'lazy continuation': '> - a\nb\n> c\nd\n\n> e\n- f\ng\n\n# h\ni\n',
  'a table behind a line of text': 'text\na | b\n-|-\n1 | 2\n\nend\n',
  'a table that is none': '| a | b |\n|---|--x\n| 1 | 2 |\n\nend\n',
  'a title over blank lines': '[t]: http://t.test\n"one\n\n# two\n\nthree"\n\n[t]\n',
  'a label over lines': '[t\n# u\n]: http://t.test\n\nv\n',
  'a fence in a list': '- a\n\n  ```\n  b\n\n  c\n  ```\n\n  d\n\n~~~\n```\n~~~\ne\n',
  'a fence that seems closed': '```\na\n``` b\n```\nc\n',
  'indented code over blank lines': 'a\n\n    b\n\n\n    c\n\nd\n',
  'a formula over lines': 'a\n$$\n- b\n---\n= c\n$$\nd\n\n\\[ x\n+ y \\]\n\nend\n',
  'a formula that never ends': 'a\n\n$$ b\n- c\n# d\n\n$$ e\n\nend\n',
  'html is text': '<div>\n\n*a*\n\n<!-- b\n\nc -->\n\n<script>\nd\n\n</script>\n\ne\n',
}

for (const [name, content] of Object.entries(TRAPS)) {
  test(`letter by letter: ${name}`, () => {
    const final = blocksOf(content).map(htmlOf)
    const growing = new GrowingBlocks()
    for (let end = 1; end <= content.length; end += 1) {
      growing.update(content.slice(0, end))
      const frozen = growing.frozen.map(htmlOf)
      assert.deepEqual(frozen, final.slice(0, frozen.length))
    }
    assert.deepEqual(all(growing), final)
    assert.ok(growing.frozen.length > 0)
  })
}

test('a definition that comes late changes nothing but references to it', () => {
  const links = /<a [^>]*>|<\/a>/g
  const content =
    'See [one][r], and [r].\n\n- [r]\n\n# Next\n\n[r]: http://r.test\n\n[r] again\n\nEnd\n'
  const growing = new GrowingBlocks()
  for (let end = 0; end <= content.length; end += 1) growing.update(content.slice(0, end))
  const shown = [...growing.frozen, ...growing.tail].map(htmlOf)
  const final = blocksOf(content).map(htmlOf)
  assert.notDeepEqual(shown, final)
  assert.equal(shown.length, final.length)
  assert.deepEqual(shown.slice(3), final.slice(3))
  assert.equal(final[1]?.match(links)?.length, 2)
})

test('an open fence grows without being lexed again, and ends where it is closed', () => {
  const growing = new GrowingBlocks()
  growing.update('Look:\n\n```js\nlet a\n')
  assert.deepEqual(growing.tail.at(-1), { kind: 'code', language: 'js', text: 'let a' })
  growing.update('Look:\n\n```js\nlet a\n``')
  assert.deepEqual(growing.tail.at(-1), { kind: 'code', language: 'js', text: 'let a' })
  growing.update('Look:\n\n```js\nlet a\n``\n# no heading\n```\n# heading\n\nx')
  assert.deepEqual([...growing.frozen, ...growing.tail].map(htmlOf), [
    '<p>Look:</p>',
    '<pre><code class="language-js">let a\n``\n# no heading</code></pre>',
    '<h3>heading</h3>',
    '<p>x</p>',
  ])
})

test('a text that is no continuation is refused', () => {
  const growing = new GrowingBlocks()
  assert.ok(growing.update('abc'))
  assert.equal(growing.update('abd'), false)
  assert.deepEqual(growing.tail.map(htmlOf), ['<p>abc</p>'])
})

test('what is long finished is frozen', () => {
  const growing = new GrowingBlocks()
  growing.update(
    '# a\n\nb\n\n- c\n- d\n\n| e |\n|:-:|\n| f |\n\n> g\n\n```\nh\n```\n\n    i\n\nj\n',
  )
  assert.equal(growing.frozen.length, 7)
  assert.deepEqual(growing.tail.map(htmlOf), ['<p>j</p>'])
})
