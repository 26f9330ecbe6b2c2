// Calls each function of stores and timers once. Some values are orders: see cases.toml.

import { Reject, STREAM_TIME, WALL_CLOCK, decode, timerTransform } from "../../../../sdk/js/index.js";

const text = (value) => (value === null ? "null" : decode(value));
const name = (key) => (typeof key === "number" ? key : decode(key));
const shown = (pairs, more) => pairs.map(([key, value]) => `${name(key)}=${text(value)},`).join("") + (more ? "more" : "");

function each(record, stores, timers) {
  const said = [];
  const entries = (found) => said.push(shown(found.entries, found.more));
  for (const key of ["a/1", "a/2", "b/1", "b/2"]) stores.put("s", key, key);
  stores.put("s", "empty", "");
  stores.delete("s", "a/1");
  entries(stores.prefix("s", "a/"));
  entries(stores.range("s", { start: "a/2", end: "b/2", reverse: true }));
  entries(stores.range("s", { limit: 1 }));
  said.push(String(stores.deleteRange("s", { start: "b/", end: "b/9", limit: 1 })));
  for (const key of ["b/1", "b/2", "empty"]) said.push(text(stores.get("s", key)));
  for (const start of [10, 20, 95]) stores.putWindow("w", record.key, start, String(start));
  const first = stores.windowsOf("w", record.key, 0, 19);
  stores.deleteWindow("w", record.key, 20);
  stores.putWindow("w", record.key, 120, "last");
  said.push(text(stores.window("w", record.key, 10)), text(stores.window("w", record.key, 95)));
  const last = stores.windowsOf("w", record.key, 0, 1000, { reverse: true, limit: 1 });
  said.push(shown(last.windows, last.more), shown(first.windows, first.more));
  timers.set(STREAM_TIME, "x", 9000);
  timers.set(STREAM_TIME, "x", 5000);
  timers.set(STREAM_TIME, "y", 6000);
  timers.cancel(STREAM_TIME, "y");
  timers.set(WALL_CLOCK, "w", timers.clock() + 100);
  said.push(String(timers.clock()));
  return said.join(";");
}

export const { configure, process, fire } = timerTransform({
  reads: (record, reads) => reads.key("s", "read ahead"),

  record(record, stores, timers, out) {
    const order = text(record.value);
    if (order === "null") {
      out.emit(record, { value: each(record, stores, timers) });
      return;
    }
    if (order === "stray") stores.get("nothing", "k");
    if (order.startsWith("put")) stores.put("s", record.key, order);
    if (order.endsWith("reject")) throw new Reject("told to reject");
    if (order === "timer") timers.set(WALL_CLOCK, record.key, 100);
    out.keep(record);
  },

  fire(timer, stores, timers, emit) {
    if (text(timer.name) === "bad") throw new Reject("told to fail");
    const domain = timer.domain === STREAM_TIME ? "stream" : "clock";
    emit.record(timer.name, domain, timer.at, { headers: [["at", String(timer.at)], ["null", null]], to: 1 });
  },
});
