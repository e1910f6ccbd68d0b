/**
 * A new stream or session id: a random UUID, canonical and lower case.
 *
 * `crypto.randomUUID` exists only in secure contexts; a page served over plain http from another
 * machine has `getRandomValues` alone.
 *
 * @param {Pick<Crypto, 'getRandomValues'> & {randomUUID?: () => string}} [source]
 * @returns {string}
 */
export declare function newId(source?: Pick<Crypto, 'getRandomValues'> & {
    randomUUID?: () => string;
}): string;
