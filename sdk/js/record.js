// Records, as views of the columns of a batch: nothing is copied before it is asked for.

import { decode } from "./text.js";

export const NULL = 0xffffffff;

// One record of a batch.
export class Record {
  constructor(batch, index, header) {
    this.batch = batch;
    this.index = index;
    this.firstHeader = header;
  }

  // The key as bytes; null for null, and when `needs` in plugin.toml leaves keys out.
  get key() {
    return field(this.batch.data, this.batch.keys, this.index);
  }

  // The value as bytes; null for null, and when `needs` in plugin.toml leaves values out.
  get value() {
    return field(this.batch.data, this.batch.values, this.index);
  }

  // The value as text; null as above.
  get text() {
    const value = this.value;
    return value === null ? null : decode(value);
  }

  // Milliseconds since 1970-01-01 UTC; -1 for none.
  get timestamp() {
    return Number(this.batch.timestamps[this.index]);
  }

  // Its offset; -1 if it comes from no stored record.
  get offset() {
    return Number(this.batch.offsets[this.index]);
  }

  get topic() {
    return this.batch.topic;
  }

  get partition() {
    return this.batch.partition;
  }

  // Name and value (bytes or null) of each header.
  get headers() {
    const columns = this.batch.headers;
    const found = [];
    for (let i = this.firstHeader; i < this.firstHeader + headerCount(this.batch, this.index); i++) {
      found.push([decode(field(this.batch.data, columns.names, i)), field(this.batch.data, columns.values, i)]);
    }
    return found;
  }

  // The value of the last header of this name; null if there is none.
  header(name) {
    return this.headers.findLast(([other]) => other === name)?.[1] ?? null;
  }
}

// All records of a batch, in order.
export function* records(batch) {
  let header = 0;
  for (let index = 0; index < batch.offsets.length; index++) {
    yield new Record(batch, index, header);
    header += headerCount(batch, index);
  }
}

// How many headers a record has.
export function headerCount(batch, index) {
  return batch.headers ? batch.headers.counts[index] : 0;
}

// Field `index` of a column; null for null, and for a column that was left out.
export function field(data, column, index) {
  if (index >= column.lengths.length || column.lengths[index] === NULL) return null;
  const offset = column.offsets[index];
  return data.subarray(offset, offset + column.lengths[index]);
}
