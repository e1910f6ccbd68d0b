// Written here: of KaTeX's own types, those of what the page uses. The script sets a global.

interface Options {
  displayMode: boolean
  throwOnError: boolean
  strict: boolean
  trust: boolean
  maxSize: number
  maxExpand: number
}

declare global {
  var katex: { render(tex: string, element: Element, options: Options): void }
}
export {}
