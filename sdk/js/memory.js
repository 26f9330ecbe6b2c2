// Stores and timers in memory, as a server has them: for unit tests.

import { column, strings, times } from "./stores.js";
import { toBinary } from "./text.js";

// Entries that a server gives at once.
const MAX_ENTRIES = 10_000;

const need = (condition, text) => {
  if (!condition) throw new Error(text);
};

// All stores of a node: those of entries by name, and those of windows by name with their retention in milliseconds. What a plugin
// calls is what the contract has. Keys are kept as text with a character for each byte, which is in the order of the bytes.
export class MemoryStores {
  constructor(names, retentions) {
    this.kept = { entries: {}, windows: {} };
    for (const name of names) this.kept.entries[name] = new Map();
    for (const name of Object.keys(retentions)) this.kept.windows[name] = { time: -1, windows: new Map() };
    this.retentions = retentions;
  }

  get(store, keys) {
    const entries = this.#entries(store);
    return column(strings(keys).map((key) => entries.get(toBinary(key)) ?? null));
  }

  put(store, keys, values) {
    const [entries, contents] = [this.#entries(store), strings(values)];
    strings(keys).forEach((key, i) => {
      need(key !== null, "no key is null");
      if (contents[i] === null) entries.delete(toBinary(key));
      else entries.set(toBinary(key), contents[i]);
    });
  }

  range(store, start, end, reverse, limit) {
    const [from, to] = [toBinary(start), end === null ? null : toBinary(end)];
    return this.#page(store, (key) => key >= from && (to === null || key < to), reverse, limit);
  }

  prefix(store, prefix, reverse, limit) {
    const begin = toBinary(prefix);
    return this.#page(store, (key) => key.startsWith(begin), reverse, limit);
  }

  deleteRange(store, start, end, limit) {
    const { keys, more } = this.range(store, start, end, false, limit);
    for (const key of strings(keys)) this.#entries(store).delete(toBinary(key));
    return more;
  }

  getWindows(store, keys, starts) {
    const { windows } = this.#windows(store);
    return column(strings(keys).map((key, i) => windows.get(place(key, starts[i]))?.value ?? null));
  }

  putWindows(store, keys, starts, values) {
    const [kept, contents] = [this.#windows(store), strings(values)];
    const isKept = (start) => start + this.retentions[store] > kept.time;
    strings(keys).forEach((key, i) => {
      const start = Number(starts[i]);
      need(key !== null && start >= 0, `${start} is no time for a window`);
      kept.time = Math.max(kept.time, start);
      if (!isKept(start)) return;
      if (contents[i] === null) kept.windows.delete(place(key, start));
      else kept.windows.set(place(key, start), { key: toBinary(key), start, value: contents[i] });
    });
    for (const [at, { start }] of kept.windows) if (!isKept(start)) kept.windows.delete(at);
  }

  windowsOf(store, key, first, last, reverse, limit) {
    const isWanted = (window) => window.key === toBinary(key) && window.start >= first && window.start <= last;
    const found = [...this.#windows(store).windows.values()].filter(isWanted).sort((a, b) => a.start - b.start);
    const { part, more } = page(found, reverse, limit);
    return { starts: times(part.map(({ start }) => start)), values: column(part.map(({ value }) => value)), more };
  }

  #page(store, isWanted, reverse, limit) {
    const entries = [...this.#entries(store)].filter(([key]) => isWanted(key)).sort(([a], [b]) => (a < b ? -1 : 1));
    const { part, more } = page(entries, reverse, limit);
    const key = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));
    return { keys: column(part.map(([text]) => key(text))), values: column(part.map(([, value]) => value)), more };
  }

  #entries(store) {
    need(this.kept.entries[store], `the node is not given a store \`${store}\` of entries`);
    return this.kept.entries[store];
  }

  #windows(store) {
    need(this.kept.windows[store], `the node is not given a store \`${store}\` of windows`);
    return this.kept.windows[store];
  }
}

const place = (key, start) => `${start} ${toBinary(key)}`;

function page(found, reverse, limit) {
  if (reverse) found.reverse();
  const most = Math.min(limit, MAX_ENTRIES);
  return { part: found.slice(0, most), more: found.length > most };
}

// All timers of a node, and the clock.
export class MemoryTimers {
  constructor() {
    this.kept = { timers: new Map() };
    this.now = 0;
  }

  set(domain, names, at) {
    strings(names).forEach((name, i) => {
      need(at[i] >= 0, `${at[i]} is no time for a timer`);
      this.kept.timers.set(`${domain} ${toBinary(name)}`, { domain, name, at: Number(at[i]) });
    });
  }

  cancel(domain, names) {
    for (const name of strings(names)) this.kept.timers.delete(`${domain} ${toBinary(name)}`);
  }

  clock() {
    return BigInt(this.now);
  }

  // Those that are due, in order. They are not set any more.
  take(domain, now) {
    const due = [...this.kept.timers].filter(([, timer]) => timer.domain === domain && timer.at <= now);
    due.sort(([a, one], [b, other]) => one.at - other.at || (a < b ? -1 : 1));
    for (const [name] of due) this.kept.timers.delete(name);
    return due.map(([, timer]) => timer);
  }
}

// Does something with stores and timers, which stay as they were if it fails.
export function orAsBefore(all, act) {
  const before = all.map(({ kept }) => structuredClone(kept));
  try {
    return act();
  } catch (error) {
    all.forEach((one, i) => (one.kept = before[i]));
    throw error;
  }
}
