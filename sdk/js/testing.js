// Runs a plugin without pelton, as pelton would: for unit tests.

import { MemoryStores, MemoryTimers, orAsBefore } from "./memory.js";
import { NULL, field, records } from "./record.js";
import { asBytes, column, strings, times } from "./stores.js";
import { encode } from "./text.js";
import { NO_SOURCE, STREAM_TIME, WALL_CLOCK } from "./timers.js";

// Configures a plugin (the exports of its module) and gives it the records as one batch: objects of `key`, `value` (bytes,
// a string or null), `timestamp` and `headers`. Answers what it emits, with `output` for where it goes; throws what the
// plugin throws, `{ tag: "reject", val: [{ index, reason }] }` if it rejects records.
export function run(plugin, config, given) {
  plugin.configure(settings(config));
  const batch = batchOf(given);
  return expand(batch, plugin.process(batch));
}

// Configures a partitioner and asks it where the records go.
export function partitions(plugin, config, given, count) {
  plugin.configure(settings(config));
  const placed = Array.from(plugin.partition(batchOf(given), count));
  if (placed.length !== given.length) throw new Error("a partition for each record");
  if (!placed.every((p) => Number.isInteger(p) && p >= 0 && p < count)) throw new Error(`${placed} of ${count} partitions`);
  return placed;
}

// A plugin with state (the exports of its module), and its stores, which stay from batch to batch: `stores` are names of those of
// entries, `windows` those of windows, each with its retention in milliseconds. A batch that fails leaves them as they were.
export class StateRun {
  constructor(plugin, config, { stores = [], windows = {} } = {}) {
    this.plugin = plugin;
    this.stores = new MemoryStores(stores, windows);
    plugin.configure(settings(config));
  }

  // Gives the records as one batch. Answers what it emits, and throws, as `run` does.
  give(given) {
    const batch = batchOf(given);
    return lent(this, [this.stores], () => expand(batch, this.plugin.process(batch)));
  }

  // The value of a key, as text; null if there is none.
  entry(store, key) {
    return text(strings(this.stores.get(store, column([asBytes(key)])))[0]);
  }
}

// A plugin with timers, its stores, its timers and the clock, which stands at 0. A call that fails leaves them as they were.
export class TimerRun extends StateRun {
  timers = new MemoryTimers();
  streamTime = -1;

  // Gives the records one by one, and has timers on stream time fire before those that bring it there. What comes out.
  give(given) {
    return given.flatMap((record) => {
      this.streamTime = Math.max(this.streamTime, record.timestamp ?? 0);
      const fired = this.#fire(STREAM_TIME, this.streamTime);
      const batch = batchOf([record]);
      return [...fired, ...lent(this, [this.stores, this.timers], () => expand(batch, this.plugin.process(batch)))];
    });
  }

  // The clock goes on. What comes of timers on it that are due.
  tick(clock) {
    this.timers.now = clock;
    return this.#fire(WALL_CLOCK, clock);
  }

  #fire(domain, now) {
    return lent(this, [this.stores, this.timers], () => {
      const due = this.timers.take(domain, now);
      if (due.length === 0) return [];
      const names = column(due.map(({ name }) => name));
      return expand(batchOf([]), this.plugin.fire(domain, names, times(due.map(({ at }) => at))));
    });
  }
}

// Calls a plugin as the server does, which has its stores and timers where the SDK looks for them.
function lent({ stores, timers }, all, call) {
  [globalThis.peltonState, globalThis.peltonTimers] = [stores, timers];
  try {
    return orAsBefore(all, call);
  } finally {
    delete globalThis.peltonState;
    delete globalThis.peltonTimers;
  }
}

// An aggregator (the exports of its module), and the value of each group, as bytes by name.
export class AggregateRun {
  values = new Map();

  constructor(plugin, config) {
    this.plugin = plugin;
    plugin.configure(settings(config));
  }

  // Adds a record to a group. Its value then, as text.
  add(group, record) {
    return this.#fold("add", group, record);
  }

  // Takes a record out of a group. Its value then, as text.
  subtract(group, record) {
    return this.#fold("subtract", group, record);
  }

  // One group takes in another one, which ends. Its value then, as text.
  merge(into, from) {
    const [left, right] = [into, from].map((group) => column([this.values.get(group)]));
    const [value] = strings(this.plugin.merge(left, right));
    this.values.delete(from);
    this.values.set(into, value);
    return text(value);
  }

  #fold(way, group, record) {
    const before = this.values.get(group) ?? this.plugin.create();
    const [value] = strings(this.plugin[way](column([before]), batchOf([{ ...record, key: group }]), [0]));
    this.values.set(group, value);
    return text(value);
  }
}

const settings = (config) => Object.entries(config).map(([name, value]) => [name, String(value)]);

// The record `batch` of the contract: the topic `test`, partition 0, from offset 0.
export function batchOf(given) {
  const data = [];
  const column = () => ({ offsets: [], lengths: [] });
  const push = (to, content) => {
    const bytes = typeof content === "string" ? encode(content) : content;
    to.offsets.push(data.length);
    to.lengths.push(bytes == null ? NULL : bytes.length);
    if (bytes != null) data.push(...bytes);
  };
  const [keys, values] = [column(), column()];
  const headers = { counts: [], names: column(), values: column() };
  for (const record of given) {
    push(keys, record.key);
    push(values, record.value);
    headers.counts.push((record.headers ?? []).length);
    for (const [name, value] of record.headers ?? []) {
      push(headers.names, name);
      push(headers.values, value);
    }
  }
  return {
    topic: "test",
    partition: 0,
    data: Uint8Array.from(data),
    offsets: given.map((_, i) => i),
    keys,
    values,
    timestamps: given.map((record) => record.timestamp ?? 0),
    headers: headers.names.offsets.length > 0 ? headers : null,
  };
}

// The records that an answer emits.
export function expand(batch, output) {
  const data = Uint8Array.from([...batch.data, ...output.data]);
  const of = [...records(batch)];
  let header = 0;
  return Array.from(output.source, (source, i) => {
    const record = source === NO_SOURCE ? { key: null, value: null, timestamp: -1, headers: [] } : of[source];
    let headers = record.headers;
    if (output.headers) {
      const { counts, names, values } = output.headers;
      const span = Array.from({ length: counts[i] }, (_, j) => header + j);
      headers = span.map((j) => [Buffer.from(field(data, names, j)).toString(), field(data, values, j)]);
      header += counts[i];
    }
    return {
      key: output.keys ? field(data, output.keys, i) : record.key,
      value: output.values ? field(data, output.values, i) : record.value,
      timestamp: Number(output.timestamps ? output.timestamps[i] : record.timestamp),
      headers,
      output: output.route ? output.route[i] : 0,
    };
  });
}

// Bytes as text, null as null: for comparing.
export const text = (bytes) => (bytes === null ? null : Buffer.from(bytes).toString());
