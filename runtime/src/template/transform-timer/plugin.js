// A transform with timers: `record` sees a record, `fire` a timer that is due. As plugin.ts it is TypeScript.

import { Reject, WALL_CLOCK, timerTransform } from "./pelton-sdk/index.js";

// Says of each key that no record of it has come for a while.
const plugin = {
  afterMs: 0,

  // Called once, with the settings of plugin.toml and pipeline.toml, as text.
  configure(config) {
    this.afterMs = Number(config.after_ms);
  },

  record(record, stores, timers) {
    if (record.key === null) throw new Reject("there is no key");
    // A timer for each key, which every record moves.
    timers.set(WALL_CLOCK, record.key, timers.clock() + this.afterMs);
  },

  fire(timer, stores, timers, emit) {
    emit.record(timer.name, "quiet", timer.at);
  },
};

export const { configure, process, fire } = timerTransform(plugin);
