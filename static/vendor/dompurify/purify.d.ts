// Written here: of DOMPurify's own types, those of what the page uses.

interface Purifier {
  sanitize(html: string, config: object): DocumentFragment
  addHook(
    name: 'uponSanitizeAttribute',
    hook: (element: Element, data: { attrName: string; attrValue: string; keepAttr: boolean }) => void,
  ): void
  addHook(name: 'afterSanitizeAttributes', hook: (element: Element) => void): void
}

declare const purifier: Purifier
export default purifier
