// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { StateRun, text } from "./pelton-sdk/testing.js";
import * as plugin from "./plugin.js";

test("records are counted by key", () => {
  const run = new StateRun(plugin, {}, { stores: ["seen"] });
  const counts = (...keys) => run.give(keys.map((key) => ({ key }))).map((record) => text(record.value));
  assert.deepEqual(counts("a", "b", "a"), ["1", "1", "2"]);
  // Stores stay from batch to batch.
  assert.deepEqual(counts("a"), ["3"]);
});

test("what a failed batch has written is dropped", () => {
  const run = new StateRun(plugin, {}, { stores: ["seen"] });
  const rejected = { tag: "reject", val: [{ index: 1, reason: "there is no key" }] };
  assert.throws(() => run.give([{ key: "a" }, { value: "x" }]), (thrown) => {
    assert.deepEqual(thrown, rejected);
    return true;
  });
  assert.equal(run.entry("seen", "a"), null);
});
