import assert from "node:assert/strict";
import { test } from "node:test";

import { run, text } from "../../../../sdk/js/testing.js";
import * as plugin from "./plugin.js";

test("lines become objects", () => {
  const given = [{ value: '1;Jörg "J"\t' }, { value: ";" }, { value: null }];
  const out = run(plugin, { columns: "id,name", separator: ";" }, given).map((record) => text(record.value));
  assert.deepEqual(out, ['{"id":"1","name":"Jörg \\"J\\"\\u0009"}', '{"id":"","name":""}', null]);
});

test("what does not fit is rejected", () => {
  const reject = (thrown) => {
    assert.deepEqual(thrown, { tag: "reject", val: [{ index: 1, reason: "the line has 1 fields, not 2" }] });
    return true;
  };
  assert.throws(() => run(plugin, { columns: "a,b", separator: "," }, [{ value: "1,2" }, { value: "1" }]), reject);
  assert.throws(() => run(plugin, { columns: "a,,b", separator: "," }, []), (why) => why === "columns: a name is empty");
});
