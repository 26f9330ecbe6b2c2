// Plugins for pelton in JavaScript and TypeScript.
//
//   import { transform } from "./pelton-sdk/index.js";
//
//   export const { configure, process } = transform({
//     record(record, out) {
//       out.emit(record, { value: record.text.toUpperCase() });
//     },
//   });

import { unsigned, unsignedBatch, unsignedOutput } from "./numbers.js";
import { Out } from "./out.js";
import { records } from "./record.js";
import { Reads, Stores, asBytes, column, strings } from "./stores.js";
import { Emit, Timers } from "./timers.js";
import * as log from "./log.js";

export { Out } from "./out.js";
export { Record, records } from "./record.js";
export { decode, encode } from "./text.js";
export { partitionOfKey } from "./partition.js";
export { Reads, Stores } from "./stores.js";
export { Emit, STREAM_TIME, Timers, WALL_CLOCK } from "./timers.js";
export { log };

// This record cannot be processed, now or later. What happens to it is `on_error` of the pipeline. Whatever else is
// thrown does the same, but its text is less kind to whoever reads it.
export class Reject extends Error {}

// Give me the same batch again later.
export class Retry extends Error {}

// Stop the pipeline.
export class Fatal extends Error {}

// The exports of a transform: `plugin` has `record(record, out)`, or `batch(batch)` to work on columns, and may have
// `configure(config)`.
export function transform(plugin) {
  return {
    configure: (config) => configured(plugin, config),
    process(given) {
      const batch = unsignedBatch(given);
      const take = (record, out) => plugin.record(record, out);
      return telling(() => unsignedOutput(plugin.batch ? plugin.batch(batch) : eachRecord(batch, take)));
    },
  };
}

// The exports of a transform with stores: `plugin` has `record(record, stores, out)`, or `batch(batch, stores)`, and may have
// `configure(config)` and `reads(record, reads)`, which names the keys that `record` will read (`reads.key(store, key)`), so that
// the server is asked for those of a whole batch at once. What it keeps in its own memory is a cache and says nothing about a store: a
// call may be undone.
export function stateTransform(plugin) {
  return {
    configure: (config) => configured(plugin, config),
    process(given) {
      const batch = unsignedBatch(given);
      return telling(() => {
        const stores = new Stores(globalThis.peltonState);
        readAhead(plugin, batch, stores);
        const take = (record, out) => plugin.record(record, stores, out);
        const output = plugin.batch ? plugin.batch(batch, stores) : eachRecord(batch, take);
        stores.flush();
        return unsignedOutput(output);
      });
    },
  };
}

// The exports of a transform with stores and timers: `plugin` has `record(record, stores, timers, out)` and `fire(timer, stores,
// timers, emit)`, which is called with a timer (`domain`, `name` as bytes, `at`) that is due, and may have `configure(config)` and
// `reads(record, reads)`.
export function timerTransform(plugin) {
  const calling = (call) =>
    telling(() => {
      const [stores, timers] = [new Stores(globalThis.peltonState), new Timers(globalThis.peltonTimers)];
      const output = call(stores, timers);
      stores.flush();
      timers.flush();
      return unsignedOutput(output);
    });
  return {
    configure: (config) => configured(plugin, config),
    process(given) {
      const batch = unsignedBatch(given);
      return calling((stores, timers) => {
        readAhead(plugin, batch, stores);
        return eachRecord(batch, (record, out) => plugin.record(record, stores, timers, out));
      });
    },
    fire(domain, names, at) {
      return calling((stores, timers) => {
        const emit = new Emit();
        strings(names).forEach((name, index) => {
          try {
            plugin.fire({ domain, name, at: Number(at[index]) }, stores, timers, emit);
          } catch (error) {
            if (error instanceof Retry || error instanceof Fatal) throw error;
            throw { tag: "reject", val: [{ index, reason: reason(error) }] };
          }
        });
        return emit.finish();
      });
    },
  };
}

// The exports of an aggregator: `plugin` has `add(value, record)`, which answers the value of the record's group once the record is in
// it, and may have `configure(config)`, `create()` (the value of a group without records; empty otherwise), `subtract(value, record)`
// for tables, and `merge(value, other)` for sessions, where `value` is the earlier one. Values are bytes, answers may be a string.
export function aggregator(plugin) {
  const lacks = (text) => () => {
    throw new Fatal(text);
  };
  const subtract = plugin.subtract ?? lacks("this aggregator cannot take records out again, so it is not for tables");
  const merge = plugin.merge ?? lacks("this aggregator cannot merge values, so it is not for sessions");
  const fold = (change, values, given, groups) =>
    telling(() => {
      const now = strings(values).map((value) => value ?? new Uint8Array(0));
      const [out, rejected] = [[], []];
      for (const record of records(unsignedBatch(given))) {
        const group = unsigned(groups)[record.index];
        try {
          now[group] = asBytes(change.call(plugin, now[group], record));
          out.push(now[group]);
        } catch (error) {
          if (error instanceof Retry || error instanceof Fatal) throw error;
          rejected.push({ index: record.index, reason: reason(error) });
        }
      }
      if (rejected.length > 0) throw { tag: "reject", val: rejected };
      return column(out);
    });
  return {
    configure: (config) => configured(plugin, config),
    create() {
      try {
        return asBytes(plugin.create?.() ?? "");
      } catch (error) {
        throw reason(error);
      }
    },
    add: (values, batch, groups) => fold(plugin.add, values, batch, groups),
    subtract: (values, batch, groups) => fold(subtract, values, batch, groups),
    merge(left, right) {
      return telling(() => {
        const others = strings(right);
        try {
          return column(strings(left).map((value, i) => asBytes(merge.call(plugin, value, others[i]))));
        } catch (error) {
          // No record is to blame.
          throw error instanceof Retry || error instanceof Fatal ? error : new Fatal(reason(error));
        }
      });
    },
  };
}

// The exports of a partitioner: `plugin` has `partition(record, partitions)`, or `batch(batch, partitions)` to work on
// columns, and may have `configure(config)`.
export function partitioner(plugin) {
  return {
    configure: (config) => configured(plugin, config),
    partition(given, partitions) {
      const batch = unsignedBatch(given);
      try {
        if (plugin.batch) return unsigned(plugin.batch(batch, partitions));
        const placed = new Uint32Array(batch.offsets.length);
        for (const record of records(batch)) placed[record.index] = plugin.partition(record, partitions);
        return placed;
      } catch (error) {
        // The contract has no way to say it: the instance ends, and the log has the reason.
        log.error(reason(error));
        throw error;
      }
    },
  };
}

function configured(plugin, config) {
  try {
    plugin.configure?.(Object.fromEntries(config));
  } catch (error) {
    throw error instanceof Error ? error.message : String(error);
  }
}

// Tells the server how a call fails.
function telling(call) {
  try {
    return call();
  } catch (error) {
    if (error instanceof Retry) throw { tag: "retry", val: error.message };
    if (error instanceof Fatal) throw { tag: "fatal", val: error.message };
    throw error;
  }
}

function readAhead(plugin, batch, stores) {
  if (!plugin.reads) return;
  const reads = new Reads();
  for (const record of records(batch)) plugin.reads(record, reads);
  stores.readAhead(reads);
}

function eachRecord(batch, take) {
  const out = new Out(batch);
  const rejected = [];
  for (const record of records(batch)) {
    try {
      take(record, out);
    } catch (error) {
      if (error instanceof Retry || error instanceof Fatal) throw error;
      rejected.push({ index: record.index, reason: reason(error) });
    }
  }
  if (rejected.length > 0) throw { tag: "reject", val: rejected };
  return out.finish();
}

function reason(error) {
  if (error instanceof Reject) return error.message;
  if (!(error instanceof Error)) return String(error);
  const at = (error.stack ?? "").split("\n").find((line) => /:\d+/.test(line) && !line.includes(error.message));
  return `${error.name}: ${error.message}${at ? ` (${at.trim()})` : ""}`;
}
