// UTF-8, also where the language's runtime has no TextDecoder. What is not UTF-8 becomes U+FFFD, as there.

const decoder = typeof TextDecoder === "undefined" ? null : new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = typeof TextEncoder === "undefined" ? null : new TextEncoder();

// Bytes as text.
export function decode(bytes) {
  return decoder ? decoder.decode(bytes) : decodeByName(bytes);
}

// Text as bytes.
export function encode(text) {
  return encoder ? encoder.encode(text) : encodeByName(text);
}

// By functions that the runtime has in its own code: in QuickJS a loop over bytes takes twenty times as long. What is no
// UTF-8, and halves of characters, make them throw.
export function decodeByName(bytes) {
  const binary = toBinary(bytes);
  if (isAscii(bytes)) return binary;
  try {
    return decodeURIComponent(escape(binary));
  } catch {
    return decodePlainly(bytes);
  }
}

export function encodeByName(text) {
  try {
    const bytes = fromBinary(text);
    if (isAscii(bytes)) return bytes;
  } catch {
    // It has characters of more than a byte.
  }
  try {
    return fromBinary(unescape(encodeURIComponent(text)));
  } catch {
    return encodePlainly(text);
  }
}

const CHUNK = 4096;

function isAscii(bytes) {
  for (let i = 0; i < bytes.length; i += CHUNK) {
    if (Math.max.apply(null, bytes.subarray(i, i + CHUNK)) > 0x7f) return false;
  }
  return true;
}

// A text with a character for each byte.
export function toBinary(bytes) {
  if (bytes.toBase64) return atob(bytes.toBase64());
  let binary = "";
  for (let i = 0; i < bytes.length; i += CHUNK) binary += String.fromCharCode.apply(null, bytes.subarray(i, i + CHUNK));
  return binary;
}

// The other way round. Throws over a character of more than a byte.
function fromBinary(binary) {
  const base64 = btoa(binary);
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

export function decodePlainly(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; ) {
    const first = bytes[i++];
    if (first < 0x80) {
      text += String.fromCharCode(first);
      continue;
    }
    const more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
    // The bounds of the second byte rule out surrogates, what is too large, and longer forms than needed.
    let low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    let high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    let code = first & (0x3f >> more);
    let taken = 0;
    while (taken < more && i < bytes.length && bytes[i] >= low && bytes[i] <= high) {
      code = (code << 6) | (bytes[i++] & 0x3f);
      taken++;
      [low, high] = [0x80, 0xbf];
    }
    text += String.fromCodePoint(more > 0 && taken === more ? code : 0xfffd);
  }
  return text;
}

export function encodePlainly(text) {
  const bytes = [];
  for (const char of text) {
    let code = char.codePointAt(0);
    if (code >= 0xd800 && code < 0xe000) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 0x3f));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
  }
  return Uint8Array.from(bytes);
}
