// The stores of a node, as a plugin with state works with them.

import { slices } from "./numbers.js";
import { NULL } from "./record.js";
import { encode, toBinary } from "./text.js";

// Keys that are asked for, or written, with one call of the server.
const CHUNK = 50_000;
// More than a server gives at once.
const ALL = 0x7fffffff;

// Bytes as they are; a text as UTF-8.
export const asBytes = (content) => (typeof content === "string" ? encode(content) : content);

// Byte strings as they cross the border: the record `column` of the contract. `list` is of bytes and null.
export function column(list) {
  let length = 0;
  for (const bytes of list) length += bytes?.length ?? 0;
  const data = new Uint8Array(length);
  const [offsets, lengths] = [new Uint32Array(list.length), new Uint32Array(list.length)];
  let at = 0;
  list.forEach((bytes, i) => {
    offsets[i] = at;
    lengths[i] = bytes === null ? NULL : bytes.length;
    if (bytes === null) return;
    data.set(bytes, at);
    at += bytes.length;
  });
  return { data, fields: { offsets, lengths } };
}

// Every string of a column, as bytes; null for null.
export function strings({ data, fields }) {
  const { offsets, lengths } = slices(fields);
  return Array.from(offsets, (offset, i) => (lengths[i] === NULL ? null : data.slice(offset, offset + lengths[i])));
}

// Times as they cross the border.
export const times = (list) => BigInt64Array.from(list, BigInt);

// What `record` is going to read, so that all of a batch is asked for with one call of the server.
export class Reads {
  keys = new Map();

  // This key of a store.
  key(store, key) {
    const bytes = asBytes(key);
    if (!this.keys.has(store)) this.keys.set(store, new Map());
    this.keys.get(store).set(toBinary(bytes), bytes);
  }
}

// The stores of the node, for one call. Values are remembered while the call lasts, and what is written goes to the server at its
// end, so the border is crossed a few times for a batch and not for each record. What a call that fails has written is dropped.
// Keys and values are bytes, or a string (as UTF-8).
//
// A store that the node is not given, or one of the other kind, ends the instance.
export class Stores {
  #host;
  #stores = new Map();

  constructor(host) {
    this.#host = host;
  }

  // The value of a key, as bytes; null if there is none.
  get(store, key) {
    const [bytes, { entries }] = [asBytes(key), this.#known(store)];
    const name = toBinary(bytes);
    if (!entries.has(name)) {
      const [value] = strings(this.#host.get(store, column([bytes])));
      entries.set(name, { key: bytes, value });
    }
    return entries.get(name).value;
  }

  // Sets a key to a value; null deletes it.
  put(store, key, value) {
    const [bytes, { entries, written }] = [asBytes(key), this.#known(store)];
    const name = toBinary(bytes);
    entries.set(name, { key: bytes, value: asBytes(value) });
    written.add(name);
  }

  // Deletes a key.
  delete(store, key) {
    this.put(store, key, null);
  }

  // Asks for all of these at once.
  readAhead(reads) {
    for (const [store, wanted] of reads.keys) {
      const { entries } = this.#known(store);
      for (const keys of chunks([...wanted].filter(([name]) => !entries.has(name)))) {
        const values = strings(this.#host.get(store, column(keys.map(([, key]) => key))));
        keys.forEach(([name, key], i) => entries.set(name, { key, value: values[i] }));
      }
    }
  }

  // The entries (pairs of key and value) from `start` (inclusive) to `end` (exclusive; null: the last key), in the order of keys, and
  // whether there are `more`: a server gives at most 10,000, and about 4 MiB.
  range(store, { start = "", end = null, reverse = false, limit = ALL } = {}) {
    this.#flush(store);
    return entriesOf(this.#host.range(store, asBytes(start), asBytes(end), reverse, limit));
  }

  // The same for the keys that begin with `prefix`.
  prefix(store, prefix, { reverse = false, limit = ALL } = {}) {
    this.#flush(store);
    return entriesOf(this.#host.prefix(store, asBytes(prefix), reverse, limit));
  }

  // Deletes the first entries of a range, at most `limit` of them and 10,000. Whether there are more.
  deleteRange(store, { start = "", end = null, limit = ALL } = {}) {
    this.#flush(store);
    this.#known(store).entries.clear();
    return this.#host.deleteRange(store, asBytes(start), asBytes(end), limit);
  }

  // The value of the window of a key that begins at `start`; null if there is none.
  window(store, key, start) {
    return this.windows(store, [[key, start]])[0];
  }

  // The value of each of these windows, pairs of a key and a start, in order.
  windows(store, windows) {
    this.#flush(store);
    return [...chunks(windows)].flatMap((part) => {
      const keys = column(part.map(([key]) => asBytes(key)));
      return strings(this.#host.getWindows(store, keys, times(part.map(([, start]) => start))));
    });
  }

  // Sets a window of a key to a value; null deletes it. One that would be forgotten already is not kept.
  putWindow(store, key, start, value) {
    this.#known(store).windows.push([asBytes(key), start, asBytes(value)]);
  }

  // Deletes a window of a key.
  deleteWindow(store, key, start) {
    this.putWindow(store, key, start, null);
  }

  // The windows (pairs of start and value) of a key that begin from `first` to `last`, both inclusive, in the order of time, and
  // whether there are `more`.
  windowsOf(store, key, first, last, { reverse = false, limit = ALL } = {}) {
    this.#flush(store);
    // componentize-qjs 0.4.5 takes lists of s64 as BigInt64Array, and one alone as a number.
    const found = this.#host.windowsOf(store, asBytes(key), Number(first), Number(last), reverse, limit);
    const values = strings(found.values);
    return { windows: Array.from(found.starts, (start, i) => [Number(start), values[i]]), more: found.more };
  }

  // Gives the server what was written. Done at the end of each call that succeeds.
  flush() {
    for (const store of this.#stores.keys()) this.#flush(store);
  }

  #known(store) {
    if (!this.#stores.has(store)) this.#stores.set(store, { entries: new Map(), written: new Set(), windows: [] });
    return this.#stores.get(store);
  }

  #flush(store) {
    const known = this.#known(store);
    for (const names of chunks([...known.written])) {
      const entries = names.map((name) => known.entries.get(name));
      this.#host.put(store, column(entries.map(({ key }) => key)), column(entries.map(({ value }) => value)));
    }
    known.written.clear();
    for (const windows of chunks(known.windows)) {
      const [keys, starts, values] = [0, 1, 2].map((i) => windows.map((window) => window[i]));
      this.#host.putWindows(store, column(keys), times(starts), column(values));
    }
    known.windows = [];
  }
}

function entriesOf(found) {
  const [keys, values] = [strings(found.keys), strings(found.values)];
  return { entries: keys.map((key, i) => [key, values[i]]), more: found.more };
}

function* chunks(list) {
  for (let at = 0; at < list.length; at += CHUNK) yield list.slice(at, at + CHUNK);
}
