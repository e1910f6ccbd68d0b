import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const STATIC = new URL('../../../static/', import.meta.url)
const IMPORT = /^(?:(?:import|export|\}).* from|import) '([^']+)'$/gm

/** @param {string} path */
const read = (path) => readFileSync(new URL(path, STATIC), 'utf8')

test('the page preloads what its script imports, and nothing else', () => {
  const main = 'js/page/main.js'
  const imported = new Set([main])
  for (const path of imported) {
    for (const [, to] of read(path).matchAll(IMPORT)) {
      imported.add(new URL(to, new URL(path, STATIC)).href.slice(STATIC.href.length))
    }
  }
  imported.delete(main)
  const links = read('index.html').matchAll(/<link rel="modulepreload" href="static\/([^"]+)">/g)
  assert.deepEqual(
    Array.from(links, ([, path]) => path),
    [...imported].sort(),
  )
})
