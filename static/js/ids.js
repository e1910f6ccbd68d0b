/**
 * A new stream or session id: a random UUID, canonical and lower case.
 *
 * `crypto.randomUUID` exists only in secure contexts; a page served over plain http from another
 * machine has `getRandomValues` alone.
 *
 * @param {Pick<Crypto, 'getRandomValues'> & {randomUUID?: () => string}} [source]
 * @returns {string}
 */
export function newId(source = globalThis.crypto) {
  if (source.randomUUID) return source.randomUUID()
  const bytes = source.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6] & 0x0f) | 0x40 // version 4
  bytes[8] = (bytes[8] & 0x3f) | 0x80 // RFC 9562 variant
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
