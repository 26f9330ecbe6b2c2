// The timers of a node, and what they emit.

import { asBytes, column, times } from "./stores.js";

// The largest timestamp of the records that came in this partition. A timer on it fires before the record that brings it there.
export const STREAM_TIME = "stream-time";
// The clock of the machine.
export const WALL_CLOCK = "wall-clock";

// What `source` says of a record that is made of none.
export const NO_SOURCE = 0xffffffff;

// The timers of the node. What is set and cancelled goes to the server at the end of the call, and is dropped if it fails.
export class Timers {
  #host;
  #asked = [];

  constructor(host) {
    this.#host = host;
  }

  // Sets a timer, due at `at` (milliseconds since 1970-01-01 UTC). One of this name in the domain is moved.
  set(domain, name, at) {
    this.#asked.push({ domain, name: asBytes(name), at });
  }

  // Takes a timer away, if it is set.
  cancel(domain, name) {
    this.#asked.push({ domain, name: asBytes(name), at: null });
  }

  // The clock of the machine, as it was when the call began. Only timers should depend on it: records that are processed again see
  // another one.
  clock() {
    return Number(this.#host.clock());
  }

  // Tells the server what was asked. Done at the end of each call that succeeds.
  flush() {
    const asked = this.#asked;
    this.#asked = [];
    for (let from = 0, to; from < asked.length; from = to) {
      const { domain, at } = asked[from];
      // What is of one kind goes together, in order.
      const isAlike = (one) => one.domain === domain && (one.at === null) === (at === null);
      for (to = from; to < asked.length && isAlike(asked[to]); ) to++;
      const part = asked.slice(from, to);
      const names = column(part.map(({ name }) => name));
      if (at === null) this.#host.cancel(domain, names);
      else this.#host.set(domain, names, times(part.map((one) => one.at)));
    }
  }
}

// Collects what timers emit.
export class Emit {
  #rows = [];

  // Emits a record: `key` and `value` are bytes, a string or null, `headers` pairs of a name and bytes, a string or null, and `to` is
  // the index of an output in plugin.toml.
  record(key, value, timestamp, { headers = [], to = 0 } = {}) {
    this.#rows.push({ key: asBytes(key), value: asBytes(value), timestamp, headers, to });
  }

  // The answer.
  finish() {
    const rows = this.#rows;
    const headers = rows.flatMap((row) => row.headers);
    const lists = [
      rows.map(({ key }) => key),
      rows.map(({ value }) => value),
      headers.map(([name]) => asBytes(name)),
      headers.map(([, value]) => asBytes(value)),
    ];
    const { data, fields } = column(lists.flat());
    let at = 0;
    const [keys, values, names, headerValues] = lists.map(({ length }) => {
      const [offsets, lengths] = [fields.offsets, fields.lengths].map((list) => list.slice(at, at + length));
      at += length;
      return { offsets, lengths };
    });
    return {
      source: new Uint32Array(rows.length).fill(NO_SOURCE),
      data,
      keys,
      values,
      timestamps: times(rows.map(({ timestamp }) => timestamp)),
      headers: { counts: Uint32Array.from(rows, (row) => row.headers.length), names, values: headerValues },
      route: Uint32Array.from(rows, ({ to }) => to),
    };
  }
}
