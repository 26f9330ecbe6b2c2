// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { run, text } from "./pelton-sdk/testing.js";
import * as plugin from "./plugin.js";

test("long values are shouted", () => {
  const out = run(plugin, { longer_than: 2 }, [{ value: "abc" }, { value: "no" }]);
  assert.deepEqual(out.map((record) => text(record.value)), ["ABC"]);
});

test("a record without a value is rejected", () => {
  const rejected = { tag: "reject", val: [{ index: 0, reason: "there is no value" }] };
  assert.throws(() => run(plugin, { longer_than: 0 }, [{ value: null }]), (thrown) => {
    assert.deepEqual(thrown, rejected);
    return true;
  });
});
