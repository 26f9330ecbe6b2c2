// What the bench of languages measures: hand on, keep half of them, change some bytes of each.

import { transform } from "../../../../sdk/js/index.js";

const NAME = [...'"name":"'].map((character) => character.charCodeAt(0));
const QUOTE = 0x22;

const isKept = (value) => value !== null && value.length > 7 && (value[7] & 1) === 0;

// What stands behind the quotes of "name".
function upperName(value) {
  let at = value.indexOf(QUOTE);
  while (at >= 0 && !NAME.every((byte, i) => value[at + i] === byte)) at = value.indexOf(QUOTE, at + 1);
  if (at < 0) return;
  for (let i = at + NAME.length; i < value.length && value[i] !== QUOTE; i++)
    if (value[i] >= 0x61 && value[i] <= 0x7a) value[i] -= 0x20;
}

const columns = {
  identity: (batch) => {
    const source = new Uint32Array(batch.offsets.length);
    for (let i = 0; i < source.length; i++) source[i] = i;
    return source;
  },
  filter: ({ data, values: { offsets, lengths } }) => {
    const source = new Uint32Array(offsets.length);
    let kept = 0;
    for (let i = 0; i < offsets.length; i++)
      if (lengths[i] > 7 && lengths[i] !== 0xffffffff && (data[offsets[i] + 7] & 1) === 0) source[kept++] = i;
    return source.subarray(0, kept);
  },
};

const records = {
  identity: (record, out) => out.keep(record),
  filter: (record, out) => {
    if (isKept(record.value)) out.keep(record);
  },
  edit: (record, out) => {
    const value = record.value.slice();
    upperName(value);
    out.emit(record, { value });
  },
};

const plugin = {
  configure(config) {
    this.record = records[config.operation];
    const operation = config.columns === "true" ? columns[config.operation] : undefined;
    if (operation !== undefined) this.batch = (batch) => ({ source: operation(batch), data: new Uint8Array(0) });
  },
};

export const { configure, process } = transform(plugin);
