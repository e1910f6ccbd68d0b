/** The address of this file on a server: what comes before is the address of the server. */
const SERVED = /^(https?:.*\/)static\/js\/server-url\.js$/

/**
 * The server that this library was loaded from, if it is of the page's own origin. It may have a path
 * prefix, given by a reverse proxy or an application that contains it. A bundler's copy of the library
 * shows nothing: a development server has addresses of its own (`/@fs/…`), a bundle has other names.
 *
 * @param {string} module the address of this file
 * @param {string} page
 * @returns {URL | null}
 */
export function serverOf(module, page) {
  const [, server] = SERVED.exec(module) ?? []
  if (server === undefined || server.includes('/@')) return null
  const url = new URL(server)
  return url.origin === new URL(page).origin ? url : null
}

/**
 * The address of a path of the server. Throws a TypeError where neither `base` nor a page gives it.
 *
 * @param {string} path relative, without a slash at its start
 * @param {string | URL} [base] the server; a path prefix ends with a slash (`https://host/chat/`).
 *   Default: the server that the library was loaded from, else the root of the page's host
 * @returns {URL}
 */
export function serverUrl(path, base) {
  const page = globalThis.location?.href
  if (base !== undefined) return new URL(path, new URL(base, page))
  if (page === undefined) {
    throw new TypeError(
      'the address of the server is missing: outside a browser, pass `base`, for example ' +
        "new ChatClient({ base: 'http://127.0.0.1:8765/' })",
    )
  }
  return new URL(path, serverOf(import.meta.url, page) ?? new URL('/', page))
}
