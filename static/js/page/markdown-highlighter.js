// A worker: it colours code, so that the page never waits for it.

import highlighter from '../../vendor/highlight/highlight.js'
import { codeParts } from './markdown-code-tokens.js'

/** The languages that are not in the bundle, each in a file of its own. */
const FURTHER = /** @type {Record<string, string>} */ ({
  dart: 'dart',
  docker: 'dockerfile',
  dockerfile: 'dockerfile',
  elixir: 'elixir',
  ex: 'elixir',
  exs: 'elixir',
  haskell: 'haskell',
  hs: 'haskell',
  http: 'http',
  latex: 'latex',
  nginx: 'nginx',
  powershell: 'powershell',
  proto: 'protobuf',
  protobuf: 'protobuf',
  ps1: 'powershell',
  pwsh: 'powershell',
  scala: 'scala',
  tex: 'latex',
})

/**
 * @param {string} name
 * @returns {Promise<boolean>} whether it is known
 */
async function load(name) {
  if (highlighter.getLanguage(name)) return true
  const file = Object.hasOwn(FURTHER, name) ? FURTHER[name] : undefined
  if (file === undefined) return false
  const { default: grammar } = await import(`../../vendor/highlight/languages/${file}.js`)
  highlighter.registerLanguage(file, grammar)
  return true
}

/** @typedef {import('./markdown-code-tokens.js').CodeToken} CodeToken */

const port = /** @type {{postMessage: (message: {id: number, parts: CodeToken[][]}) => void}} */ (
  /** @type {unknown} */ (self)
)

self.addEventListener('message', async ({ data }) => {
  const { id, code, language } = /** @type {{id: number, code: string, language: string}} */ (data)
  /** @type {CodeToken[][]} */
  let parts = []
  try {
    if (await load(language.toLowerCase())) {
      const options = { language: language.toLowerCase(), ignoreIllegals: true }
      parts = codeParts(highlighter.highlight(code, options).value)
    }
  } catch {
    // It stays without colours.
  }
  port.postMessage({ id, parts })
})
