// A partitioner: says which partition of its topic each record goes to. As plugin.ts it is TypeScript.

import { partitionOfKey, partitioner } from "./pelton-sdk/index.js";

// Keys that begin alike, up to the first `-`, lie in one partition: `eu-17` beside `eu-4`.
const plugin = {
  partition(record, partitions) {
    const key = record.key ?? new Uint8Array(0);
    const end = key.indexOf("-".charCodeAt(0));
    return partitionOfKey(end < 0 ? key : key.subarray(0, end), partitions);
  },
};

export const { configure, partition } = partitioner(plugin);
