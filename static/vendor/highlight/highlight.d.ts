// Written here: of highlight.js's own types, those of what the page uses.

interface Highlighter {
  getLanguage(name: string): unknown
  registerLanguage(name: string, grammar: unknown): void
  highlight(code: string, options: { language: string; ignoreIllegals: boolean }): { value: string }
}

declare const highlighter: Highlighter
export default highlighter
