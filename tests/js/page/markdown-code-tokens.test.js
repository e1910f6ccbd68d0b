import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

import { PART_LINES, codeParts } from '../../../static/js/page/markdown-code-tokens.js'
import highlighter from '../../../static/vendor/highlight/highlight.js'

const joined = (parts) => parts.map((part) => part.map(([, text]) => text).join(''))

test('no character is lost or added, whatever the language', () => {
  const source = readFileSync(new URL(import.meta.url), 'utf8')
  const code = `${source}\n<b title="&amp;'">&lt;\u00a0&copy;</b> // "quoted" 'x' \\ \`\${1 + 1}\``
  for (const language of [
    'javascript',
    'xml',
    'python',
    'bash',
    'markdown',
    'json',
    'sql',
    'css',
  ]) {
    const options = { language, ignoreIllegals: true }
    const parts = codeParts(highlighter.highlight(code, options).value)
    assert.equal(joined(parts).join(''), code)
    for (const part of joined(parts).slice(0, -1)) {
      assert.equal(part.split('\n').length - 1, PART_LINES)
      assert.ok(part.endsWith('\n'))
    }
    assert.equal(parts.length, Math.ceil(code.split('\n').length / PART_LINES))
  }
})

test('nested scopes become one list of classes', () => {
  const html = 'a <span class="hljs-string">&quot;<span class="hljs-subst">b</span>\n&#x27;</span>'
  assert.deepEqual(codeParts(html), [
    [
      ['', 'a '],
      ['hljs-string', '"'],
      ['hljs-string hljs-subst', 'b'],
      ['hljs-string', "\n'"],
    ],
  ])
})

test('there is no empty part at the end', () => {
  assert.equal(codeParts('x\n'.repeat(PART_LINES)).length, 1)
  assert.equal(codeParts(`${'x\n'.repeat(PART_LINES)}y`).length, 2)
})
