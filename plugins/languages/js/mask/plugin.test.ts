import assert from "node:assert/strict";
import { test } from "node:test";

import { run, text } from "../../../../sdk/js/testing.js";
import * as plugin from "./plugin.js";

test("digits are masked and counted", () => {
  const given = [
    { value: "card 1234-5678-9012" },
    { value: "no 123" },
    { value: null },
    { value: "1234567", headers: [["internal", "true"]] },
  ];
  const out = run(plugin, { keep: 4, header: "masked" }, given);
  const shown = out.map((r) => [text(r.value), r.headers.map(([name, value]) => `${name}:${text(value)}`).join()]);
  assert.deepEqual(shown, [["card ****-****-9012", "masked:8"], ["no 123", ""], [null, ""]]);
});
