import assert from 'node:assert/strict'
import test from 'node:test'

import { blocksOf, htmlOf } from '../../../static/js/page/markdown-blocks.js'
import { safeUrl } from '../../../static/js/page/markdown-html.js'

const html = (/** @type {string} */ markdown) => blocksOf(markdown).map(htmlOf).join('')

test('HTML is text, but for a line break', () => {
  assert.equal(html('<b>a</b><br>b<BR />c'), '<p>&lt;b&gt;a&lt;/b&gt;<br>b<br>c</p>')
  assert.equal(html('<br onclick=x>'), '<p>&lt;br onclick=x&gt;</p>')
  assert.equal(
    html('<div title="*x*">\n*y*'),
    '<p>&lt;div title=&quot;*x*&quot;&gt;<br><em>y</em></p>',
  )
  assert.equal(html('<pre>\n\n**a**'), '<p>&lt;pre&gt;</p><p><strong>a</strong></p>')
  assert.equal(html('&lt;b> &copy; &#60;i&#x3E;'), '<p>&lt;b&gt; &copy; &lt;i&gt;</p>')
  assert.equal(html('`<b>&amp;`'), '<p><code>&lt;b&gt;&amp;amp;</code></p>')
})

test('headings stand below those of the page', () => {
  assert.equal(html('# a\n## b\n##### c'), '<h3>a</h3><h4>b</h4><h6>c</h6>')
})

test('a link leads to another site or to a mailbox', () => {
  assert.equal(
    html('[a](https://x.test/?b=1&amp;c=2)'),
    '<p><a href="https://x.test/?b=1&amp;c=2">a</a></p>',
  )
  assert.equal(html('m@x.test'), '<p><a href="mailto:m@x.test">m@x.test</a></p>')
  for (const href of [
    '/api/sessions',
    'a.html',
    '#top',
    '//x.test',
    '?q',
    'ftp://x.test/',
    'data:,x',
  ]) {
    assert.equal(html(`[a](${href})`), '<p>a</p>')
  }
})

test('an address is judged as the browser would read it', () => {
  for (const href of [
    'javascript:x',
    ' JaVaScRiPt:x',
    'java\tscript:x',
    '\u0001javascript:x',
    'vbscript:x',
  ]) {
    assert.equal(safeUrl(href), null)
  }
  assert.equal(safeUrl('HTTPS:\\\\x.test')?.href, 'https://x.test/')
  assert.equal(safeUrl('https://пример.test/"<>')?.href, 'https://xn--e1afmkfd.test/%22%3C%3E')
})

test('an image is a link that says whom it would ask', () => {
  assert.equal(
    html('![a *b*](http://x.test:81/i.png "t")'),
    '<p><a href="http://x.test:81/i.png" title="t">a b (image at x.test:81)</a></p>',
  )
  assert.equal(
    html('![](https://x.test/i)'),
    '<p><a href="https://x.test/i">(image at x.test)</a></p>',
  )
  assert.equal(html('![a](data:image/png;base64,AA)'), '<p>a (image)</p>')
  assert.equal(
    html('[![a](https://x.test/i)](https://y.test/)'),
    '<p><a href="https://y.test/">a (image at x.test)</a></p>',
  )
})

test('a list or a quotation nested without end stays text', () => {
  for (const mark of ['>', '> ', '> - ', '1. ']) {
    const shown = html(mark.repeat(20_000))
    assert.ok(shown.length > 1000)
    assert.ok((shown.match(/<(?:blockquote|ul|ol)/g)?.length ?? 0) <= 20)
  }
})

test('what looks like endless markup is shown within bounds', () => {
  const starts = ['[', '![a](', '*a', '_a', '~~a', '`a``b', '<', '<a ', 'a.', '&a', 'http://']
  for (const start of starts) {
    const source = start.repeat(20_000)
    assert.ok(html(source).length >= source.length, start)
  }
})
