// Runs a plugin without pelton, as pelton would: for unit tests.

import { NULL, field, records } from "./record.js";
import { encode } from "./text.js";

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
    const record = of[source];
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
