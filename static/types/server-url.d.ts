/**
 * The server that this library was loaded from, if it is of the page's own origin. It may have a path
 * prefix, given by a reverse proxy or an application that contains it. A bundler's copy of the library
 * shows nothing: a development server has addresses of its own (`/@fs/…`), a bundle has other names.
 *
 * @param {string} module the address of this file
 * @param {string} page
 * @returns {URL | null}
 */
export declare function serverOf(module: string, page: string): URL | null;
/**
 * The address of a path of the server. Throws a TypeError where neither `base` nor a page gives it.
 *
 * @param {string} path relative, without a slash at its start
 * @param {string | URL} [base] the server; a path prefix ends with a slash (`https://host/chat/`).
 *   Default: the server that the library was loaded from, else the root of the page's host
 * @returns {URL}
 */
export declare function serverUrl(path: string, base?: string | URL): URL;
