// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { TimerRun, text } from "./pelton-sdk/testing.js";
import * as plugin from "./plugin.js";

test("a key that is quiet is told", () => {
  const run = new TimerRun(plugin, { after_ms: 1000 });
  assert.deepEqual(run.give([{ key: "a", value: "x" }]), []);
  assert.deepEqual(run.tick(999), []);
  const [told] = run.tick(1000);
  assert.deepEqual([text(told.key), text(told.value), told.timestamp], ["a", "quiet", 1000]);
});
