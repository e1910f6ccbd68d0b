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

const strong = (/** @type {string} */ text) => html(text).replace(/^<p>|<\/p>$/g, '')

test('emphasis beside Chinese, Japanese and Korean punctuation', () => {
  for (const [text, wanted] of [
    ['这是**我想做的事。**所以继续。', '这是<strong>我想做的事。</strong>所以继续。'],
    ['これは**「重要なこと」**です。', 'これは<strong>「重要なこと」</strong>です。'],
    ['**「強調」**の', '<strong>「強調」</strong>の'],
    ['**마크다운(Markdown)**을', '<strong>마크다운(Markdown)</strong>을'],
    ['**注意：**正文', '<strong>注意：</strong>正文'],
    ['请看**《书》**。', '请看<strong>《书》</strong>。'],
    ['先*「弱」*後', '先<em>「弱」</em>後'],
    ['**"引用"**は', '<strong>&quot;引用&quot;</strong>は'],
    ['この**`code`**は', 'この<strong><code>code</code></strong>は'],
    ['𠮷**「野」**家', '𠮷<strong>「野」</strong>家'],
    ['中**a**文**「b」**', '中<strong>a</strong>文<strong>「b」</strong>'],
    ['**A、**と***「B」***', '<strong>A、</strong>と<em><strong>「B」</strong></em>'],
    ['これは**「強調**」です**。', 'これは<strong>「強調</strong>」です**。'],
  ]) {
    assert.equal(strong(text), wanted)
  }
})

test('emphasis elsewhere is what CommonMark says', () => {
  for (const [text, wanted] of [
    ['a **b** c *d* _e_ __f__', 'a <strong>b</strong> c <em>d</em> <em>e</em> <strong>f</strong>'],
    ['un*frigging*believable', 'un<em>frigging</em>believable'],
    ['a**"b"**c', 'a**&quot;b&quot;**c'],
    ['** a **', '** a **'],
    ['**100**km, *1* and **v2**', '<strong>100</strong>km, <em>1</em> and <strong>v2</strong>'],
    ['~~old~~ new', '<del>old</del> new'],
    ['**2024**年和**5**月', '<strong>2024</strong>年和<strong>5</strong>月'],
  ]) {
    assert.equal(strong(text), wanted)
  }
})

test('characters that belong to numbers stay what they are', () => {
  for (const text of [
    '~5 km, and ~6 km',
    '1~2 and 3~4',
    '9:00~12:30, 13:00~17:00',
    '10~20元~30元',
    '1~~2 and 3~~4',
    '2*3*4 = 24',
    '2**10 and 3**4',
    '5*x*2',
    '1_000_000 or 2_000',
    '3 * 4 * 5',
    '\\~5',
  ]) {
    assert.equal(strong(text), text.replace('\\', ''))
  }
})
