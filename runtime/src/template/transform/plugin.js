// A transform: `record` sees a record and says what to emit. As plugin.ts it is TypeScript.

import { Reject, transform } from "./pelton-sdk/index.js";

// Capitals for every value that is longer than a limit; shorter ones are dropped.
const plugin = {
  longerThan: 0,

  // Called once, with the settings of plugin.toml and pipeline.toml, as text.
  configure(config) {
    this.longerThan = Number(config.longer_than);
  },

  record(record, out) {
    if (record.value === null) throw new Reject("there is no value");
    if (record.value.length > this.longerThan) out.emit(record, { value: record.text.toUpperCase() });
  },
};

export const { configure, process } = transform(plugin);
