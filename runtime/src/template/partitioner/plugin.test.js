// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { partitions } from "./pelton-sdk/testing.js";
import * as plugin from "./plugin.js";

test("a region stays together", () => {
  const placed = partitions(plugin, {}, [{ key: "eu-1" }, { key: "us-1" }, { key: "eu-2" }], 12);
  assert.equal(placed[0], placed[2]);
  assert.notEqual(placed[0], placed[1]);
});
