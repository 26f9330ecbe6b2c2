// A transform with state: `record` sees a record and the stores of its partition, and says what to emit. As plugin.ts it is
// TypeScript.

import { Reject, decode, stateTransform } from "./pelton-sdk/index.js";

// What plugin.toml calls the store.
const SEEN = "seen";

// Counts the records of each key. What is written to a store counts if and only if what is emitted does, through any crash.
const plugin = {
  // What `record` will read: all of a batch is asked for at once.
  reads(record, reads) {
    if (record.key !== null) reads.key(SEEN, record.key);
  },

  record(record, stores, out) {
    const key = record.key;
    if (key === null) throw new Reject("there is no key");
    const before = stores.get(SEEN, key);
    const count = String((before === null ? 0 : Number(decode(before))) + 1);
    stores.put(SEEN, key, count);
    out.emit(record, { value: count });
  },
};

export const { configure, process } = stateTransform(plugin);
