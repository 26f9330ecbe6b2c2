// A line with separators becomes a JSON object of texts.

import { Reject, transform } from "../../../../sdk/js/index.js";

const plugin = {
  configure({ columns, separator }) {
    this.columns = columns.split(",");
    this.separator = separator;
    if (this.columns.includes("")) throw new Error("columns: a name is empty");
    if (separator === "") throw new Error("separator is empty");
  },

  record(record, out) {
    if (record.value === null) return out.keep(record);
    const fields = record.text.split(this.separator);
    if (fields.length !== this.columns.length) {
      throw new Reject(`the line has ${fields.length} fields, not ${this.columns.length}`);
    }
    const pairs = fields.map((field, i) => `${quote(this.columns[i])}:${quote(field)}`);
    out.emit(record, { value: `{${pairs.join(",")}}` });
  },
};

const escape = (char) => (char < " " ? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}` : `\\${char}`);
const quote = (text) => `"${text.replace(/["\\\u0000-\u001f]/g, escape)}"`;

export const { configure, process } = transform(plugin);
