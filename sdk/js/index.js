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
import * as log from "./log.js";

export { Out } from "./out.js";
export { Record, records } from "./record.js";
export { decode, encode } from "./text.js";
export { partitionOfKey } from "./partition.js";
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
      try {
        return unsignedOutput(plugin.batch ? plugin.batch(batch) : eachRecord(plugin, batch));
      } catch (error) {
        if (error instanceof Retry) throw { tag: "retry", val: error.message };
        if (error instanceof Fatal) throw { tag: "fatal", val: error.message };
        throw error;
      }
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

function eachRecord(plugin, batch) {
  const out = new Out(batch);
  const rejected = [];
  for (const record of records(batch)) {
    try {
      plugin.record(record, out);
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
