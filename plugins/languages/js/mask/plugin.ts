// All digits of a value but the last ones become stars, and what is internal is left out.

import { type Config, type Out, type Record, decode, transform } from "../../../../sdk/js/index.js";

const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;

const plugin = {
  keep: 0,
  header: "",

  configure(config: Config) {
    this.keep = Number(config.keep);
    this.header = config.header;
  },

  record(record: Record, out: Out) {
    const internal = record.header("internal");
    if (internal !== null && decode(internal) === "true") return;
    const masked = (record.value?.filter(isDigit).length ?? 0) - this.keep;
    if (record.value === null || masked <= 0) return out.keep(record);
    let left = masked;
    const value = record.value.map((byte) => (left > 0 && isDigit(byte) ? (left--, "*".charCodeAt(0)) : byte));
    if (this.header === "") out.emit(record, { value });
    else out.emit(record, { value, headers: [...record.headers, [this.header, String(masked)]] });
  },
};

export const { configure, process } = transform(plugin);
