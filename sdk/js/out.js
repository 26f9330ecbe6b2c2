// What a transform answers. A column exists only from the first record that changes it: what nobody touches is inherited.

import { NULL, headerCount, records } from "./record.js";
import { encode } from "./text.js";

// Collects what a transform emits for one batch.
export class Out {
  constructor(batch) {
    this.batch = batch;
    this.used = 0;
    this.bytes = new Uint8Array(0);
    this.output = { source: [], keys: null, values: null, timestamps: null, headers: null, route: null };
  }

  // Emits the record as it is.
  keep(record) {
    this.emit(record);
  }

  // Emits the record, with what is given in place of its own: `key` and `value` are bytes, a string or null (a delete,
  // in a compacted topic), `headers` pairs of a name and bytes, a string or null, `timestamp` milliseconds, and `to` is
  // the index of an output in plugin.toml.
  emit(record, { key, value, timestamp, headers, to = 0 } = {}) {
    const { batch, output } = this;
    if (key !== undefined) output.keys ??= this.#backfill(batch.keys);
    if (value !== undefined) output.values ??= this.#backfill(batch.values);
    if (timestamp !== undefined) output.timestamps ??= output.source.map((source) => batch.timestamps[source]);
    if (headers !== undefined) output.headers ??= this.#backfillHeaders();
    if (to !== 0) output.route ??= output.source.map(() => 0);
    output.source.push(record.index);
    if (output.keys) this.#field(output.keys, batch.keys, record.index, key);
    if (output.values) this.#field(output.values, batch.values, record.index, value);
    if (output.timestamps) output.timestamps.push(timestamp ?? batch.timestamps[record.index]);
    if (output.headers) this.#headers(output.headers, record, headers);
    if (output.route) output.route.push(to);
  }

  // The answer.
  finish() {
    return { ...this.output, data: this.bytes.subarray(0, this.used) };
  }

  #field(column, inherited, index, given) {
    if (given === undefined) inherit(column, inherited, index);
    else this.#append(column, given);
  }

  #append(column, given) {
    if (given === null) {
      push(column, 0, NULL);
      return;
    }
    const bytes = typeof given === "string" ? encode(given) : given;
    const need = this.used + bytes.length;
    if (need > this.bytes.length) {
      const larger = new Uint8Array(Math.max(need, 2 * this.bytes.length, this.batch.data.length));
      larger.set(this.bytes.subarray(0, this.used));
      this.bytes = larger;
    }
    this.bytes.set(bytes, this.used);
    push(column, this.batch.data.length + this.used, bytes.length);
    this.used = need;
  }

  #headers(columns, record, given) {
    if (given === undefined) {
      const count = headerCount(this.batch, record.index);
      columns.counts.push(count);
      for (let i = record.firstHeader; i < record.firstHeader + count; i++) {
        inherit(columns.names, this.batch.headers.names, i);
        inherit(columns.values, this.batch.headers.values, i);
      }
      return;
    }
    columns.counts.push(given.length);
    for (const [name, value] of given) {
      this.#append(columns.names, name);
      this.#append(columns.values, value);
    }
  }

  // The column as if it had been there from the first record on.
  #backfill(column) {
    const filled = empty();
    for (const source of this.output.source) inherit(filled, column, source);
    return filled;
  }

  #backfillHeaders() {
    const columns = { counts: [], names: empty(), values: empty() };
    const of = this.output.source.length > 0 ? [...records(this.batch)] : [];
    for (const source of this.output.source) this.#headers(columns, of[source], undefined);
    return columns;
  }
}

const empty = () => ({ offsets: [], lengths: [] });

// Takes a field as it is in the batch; null if the batch was given without this column.
function inherit(column, from, index) {
  if (index < from.lengths.length) push(column, from.offsets[index], from.lengths[index]);
  else push(column, 0, NULL);
}

function push(column, offset, length) {
  column.offsets.push(offset);
  column.lengths.push(length);
}
