import assert from "node:assert/strict";
import { test } from "node:test";

import { partitions } from "../../../../sdk/js/testing.js";
import * as plugin from "./plugin.js";

const placed = (keys, count, config) =>
  partitions(plugin, { separator: "-", header: "", ...config }, keys.map((key) => ({ key })), count);

test("regions share no partition where there are enough", () => {
  const keys = ["eu", "us", "asia"].flatMap((region) => Array.from({ length: 100 }, (_, n) => `${region}-${n}`));
  for (const count of [3, 7, 100]) {
    const all = placed(keys, count, { regions: "eu, us" });
    const [eu, us, others] = [0, 100, 200].map((at) => all.slice(at, at + 100));
    assert.ok(Math.max(...eu) < Math.min(...us) && Math.max(...us) < Math.min(...others), `${count}`);
  }
  assert.deepEqual(new Set(placed(keys, 1, { regions: "eu, us" })), new Set([0]));
});

test("the region may be in a header", () => {
  const given = [{ key: "us-1", headers: [["region", "eu"]] }];
  assert.deepEqual(partitions(plugin, { regions: "us,eu", separator: "-", header: "region" }, given, 3), [1]);
});

test("settings that make no sense are refused", () => {
  for (const [regions, why] of [["eu,,us", "is empty"], ["eu,us,eu", "`eu` is there twice"]]) {
    assert.throws(() => placed([], 3, { regions }), (thrown) => thrown.includes(why));
  }
});
