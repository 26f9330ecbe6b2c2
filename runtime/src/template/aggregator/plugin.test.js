// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { AggregateRun } from "./pelton-sdk/testing.js";
import * as plugin from "./plugin.js";

test("the longest value stays", () => {
  const run = new AggregateRun(plugin, {});
  run.add("a", { value: "abc" });
  assert.equal(run.add("a", { value: "ab" }), "abc");
  run.add("b", { value: "longer" });
  assert.equal(run.merge("a", "b"), "longer");
});
