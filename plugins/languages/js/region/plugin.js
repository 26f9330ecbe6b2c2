// Each region has partitions of its own, and a key stays in one of them.

import { decode, partitionOfKey, partitioner } from "../../../../sdk/js/index.js";

const plugin = {
  configure({ regions, separator, header }) {
    this.regions = regions.split(",").map((name) => name.trim());
    if (this.regions.includes("")) throw new Error("regions: a name is empty; write them as `eu,us,asia`");
    const twice = this.regions.find((name, i) => this.regions.indexOf(name) < i);
    if (twice !== undefined) throw new Error(`regions: \`${twice}\` is there twice`);
    if (separator === "") throw new Error("separator is empty");
    this.separator = separator;
    this.header = header;
  },

  partition(record, partitions) {
    const key = record.key ?? new Uint8Array(0);
    const name = this.header === "" ? decode(key).split(this.separator)[0] : decode(record.header(this.header) ?? new Uint8Array(0));
    const known = this.regions.indexOf(name);
    const region = known < 0 ? this.regions.length : known;
    const begin = (share) => Math.floor((share * partitions) / (this.regions.length + 1));
    // With fewer partitions than shares, several of them have one together.
    return begin(region) + partitionOfKey(key, Math.max(begin(region + 1) - begin(region), 1));
  },
};

export const { configure, partition } = partitioner(plugin);
