import assert from 'node:assert/strict'
import test from 'node:test'

import { blocksOf, htmlOf } from '../../../static/js/page/markdown-blocks.js'

const html = (/** @type {string} */ markdown) => blocksOf(markdown).map(htmlOf).join('')
const inline = (/** @type {string} */ text) => html(text).replace(/^<p>|<\/p>$/g, '')
const math = (/** @type {string} */ raw) => `<span class="math">${raw}</span>`
const display = (/** @type {string} */ raw) => `<span class="math display">${raw}</span>`

test('a formula in a line keeps its source', () => {
  for (const raw of [
    String.raw`\(E = mc^2\)`,
    String.raw`\(a_1 * b_2 * c\)`,
    String.raw`\(\{1, 2\}\)`,
    '$x$',
    '$a*b*c$',
    '$x_1 + y_2$',
    '$5$',
    String.raw`$\alpha$`,
    String.raw`$\text{if } x = 1$`,
    String.raw`$\{x_1, x_2\}$`,
    String.raw`$a \$ b$`,
  ]) {
    assert.equal(inline(`a ${raw} b`), `a ${math(raw)} b`)
    assert.equal(inline(`**a ${raw}**, b`), `<strong>a ${math(raw)}</strong>, b`)
  }
  assert.equal(inline('the $n$-th (of $m$).'), `the ${math('$n$')}-th (of ${math('$m$')}).`)
  assert.equal(inline('由$x$得'), '由$x$得')
  assert.equal(inline('*x $a*b$ y*'), `<em>x ${math('$a*b$')} y</em>`)
  assert.equal(inline('so $$x^2$$ it is'), `so ${display('$$x^2$$')} it is`)
  assert.equal(inline('so \\[x^2\\] it is'), `so ${display('\\[x^2\\]')} it is`)
})

test('prices, paths and variables are no formulas', () => {
  for (const text of [
    '$5 and $6',
    '$5-$6',
    'from $5 to 6$ or so',
    '$20, and she has 30$.',
    'US$5 and A$6',
    '$HOME/bin:$PATH',
    'echo $A $B',
    '$5 (or 5 €), $6 (or 6 €)',
    'a $ b $ c',
    '$$',
    '$',
    '$5/month vs. 50$/year',
    '$1,000 + $2,000 = $3,000',
  ]) {
    assert.equal(inline(text), text)
  }
  assert.equal(inline('\\$5 and \\$6'), '$5 and $6')
  assert.equal(inline('`$x$` and `\\(y\\)`'), '<code>$x$</code> and <code>\\(y\\)</code>')
  assert.equal(html('```\n$$\nx\n$$\n```\n'), '<pre><code>$$\nx\n$$</code></pre>')
  assert.equal(inline('see \\[1\\] and \\[2, 3\\]'), 'see [1] and [2, 3]')
})

test('a formula that fills lines is a block, whatever its lines look like', () => {
  for (const raw of [
    '$$\nx\n$$',
    '\\[\n\\frac{a}{b}\n\\]',
    '\\[ a\n- b\n+ c\n# d\n\\]',
    '$$ x_1 * y_2 = \\{1\\} $$',
    '$$\n\\begin{aligned}\na &= b \\\\\n&= c\n\\end{aligned}\n$$',
  ]) {
    const wanted = `<p>${display(raw.replaceAll('&', '&amp;'))}</p>`
    assert.equal(html(raw), wanted)
    assert.equal(html(`a:\n${raw}\nb\n`), `<p>a:</p>${wanted}<p>b</p>`)
    assert.equal(html(`a:\n\n${raw}\n\nb\n`), `<p>a:</p>${wanted}<p>b</p>`)
  }
  assert.match(html('1. a\n\n   $$\n   x\n   $$\n\n2. b\n'), /<li>.*<span class="math display">/s)
  assert.match(html('- a\n  \\[\n  x\n  \\]\n'), /<li>.*<span class="math display">/s)
  assert.match(html('> $$\n> x\n> $$\n'), /<blockquote>\s*<p><span class="math display">/)
})

test('a formula that is not closed yet stands as it was written', () => {
  assert.equal(inline('so \\(a_1'), 'so \\(a_1')
  assert.equal(inline('so \\[ \\frac'), 'so \\[ \\frac')
  assert.equal(inline('so $a_1'), 'so $a_1')
  assert.equal(html('$$\nx y z'), '<p>$$<br>x y z</p>')
  assert.equal(html('\\[\n- a\n+ b\n'), '<p>\\[<br>- a<br>+ b</p>')
  assert.equal(html('$$ a\n\nb $$\n'), '<p>$$ a</p><p>b $$</p>')
})

test('a formula shows markup as text and is not looked through for ever', () => {
  assert.equal(inline('$<b>x</b>$'), math('$&lt;b&gt;x&lt;/b&gt;$'))
  for (const text of ['$a '.repeat(2000), '\\('.repeat(3000), '$$a'.repeat(2000), '\\['.repeat(3000)]) {
    const start = performance.now()
    html(text)
    html(`\n${text}\n`)
    assert.ok(performance.now() - start < 5000)
  }
})

test('formulas without a blank line between them take time in proportion to their length', () => {
  for (const text of ['$$x$$\n', 'a\n$$']) {
    const start = performance.now()
    html(text.repeat(150_000))
    assert.ok(performance.now() - start < 20_000)
  }
  const block = '$$\nx\n$$\n'
  assert.equal(html(block.repeat(2000)), `<p>${display('$$\nx\n$$')}</p>`.repeat(2000))
  const long = `$$\n${'- x\n'.repeat(2000)}`
  assert.match(html(`a\n${long}`), /^<p>a<br>\$\$<\/p><ul>/)
})
