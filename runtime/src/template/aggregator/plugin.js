// An aggregator: `add` puts a record into the value of its key, or of a window of it. The value is the result. As plugin.ts it is
// TypeScript.

import { Reject, aggregator } from "./pelton-sdk/index.js";

// The longest value of each key.
const plugin = {
  add(value, record) {
    const other = record.value;
    if (other === null) throw new Reject("there is no value");
    return other.length > value.length ? other : value;
  },

  // Two sessions of a key have met.
  merge(value, other) {
    return other.length > value.length ? other : value;
  },
};

export const { configure, create, add, subtract, merge } = aggregator(plugin);
