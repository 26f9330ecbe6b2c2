// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { Fatal, Out, Reject, STREAM_TIME, WALL_CLOCK } from "./index.js";
import { aggregator, partitionOfKey, partitioner, records, stateTransform, timerTransform, transform } from "./index.js";
import { AggregateRun, StateRun, TimerRun, batchOf, partitions, run, text } from "./testing.js";
import { decode, decodeByName, decodePlainly, encode, encodeByName, encodePlainly } from "./text.js";

const INPUT = [
  { key: "k0", value: "v0", timestamp: 1 },
  { key: null, value: "v1", timestamp: 2, headers: [["a", "1"]] },
  { key: "k2", value: null, timestamp: 3, headers: [["b", "1"], ["c", null]] },
];

function emitted(emit) {
  const plugin = transform({
    batch(batch) {
      const out = new Out(batch);
      emit([...records(batch)], out);
      return out.finish();
    },
  });
  return run(plugin, {}, INPUT).map((r) => {
    const headers = r.headers.map(([name, value]) => `${name}:${text(value)}`).join(",");
    return `${r.output}/${r.timestamp}/${text(r.key)}=${text(r.value)}[${headers}]`;
  });
}

test("what is kept is inherited", () => {
  const got = emitted((r, out) => {
    out.keep(r[2]);
    out.keep(r[0]);
  });
  assert.deepEqual(got, ["0/3/k2=null[b:1,c:null]", "0/1/k0=v0[]"]);
});

test("a column begins with the first change", () => {
  const got = emitted((r, out) => {
    out.keep(r[0]);
    out.emit(r[1], { value: "new" });
    out.keep(r[2]);
    out.emit(r[2], { key: encode("key"), value: "", timestamp: 9 });
    out.emit(r[0], { key: null, value: null });
    out.keep(r[1]);
  });
  assert.deepEqual(got, [
    "0/1/k0=v0[]",
    "0/2/null=new[a:1]",
    "0/3/k2=null[b:1,c:null]",
    "0/9/key=[b:1,c:null]",
    "0/1/null=null[]",
    "0/2/null=v1[a:1]",
  ]);
});

test("headers and routes", () => {
  const got = emitted((r, out) => {
    out.keep(r[2]);
    out.emit(r[1], { headers: [...r[1].headers, ["x", "2"]], to: 3 });
    out.emit(r[2], { headers: [["y", ""]] });
    out.keep(r[1]);
  });
  assert.deepEqual(got, ["0/3/k2=null[b:1,c:null]", "3/2/null=v1[a:1,x:2]", "0/3/k2=null[y:]", "0/2/null=v1[a:1]"]);
});

test("numbers with a sign are those without one", () => {
  const batch = (list) => ({ ...batchOf([{ key: "k" }, { value: "v" }]), ...list });
  const signed = { partition: -1, keys: { offsets: [0, 0], lengths: [1, -1] }, values: { offsets: [0, 1], lengths: [-1, 1] } };
  const seen = [];
  const plugin = transform({
    record(record, out) {
      seen.push([record.partition, text(record.key), text(record.value)]);
      out.emit(record, { value: record.value === null ? "x" : null });
    },
  });
  const output = plugin.process(batch(signed));
  assert.deepEqual(seen, [[0xffffffff, "k", null], [0xffffffff, null, "v"]]);
  assert.deepEqual(output.values.lengths, Uint32Array.of(1, 0xffffffff));
});

test("whatever is thrown rejects its record", () => {
  const plugin = transform({
    record(record, out) {
      if (record.key === null) throw new Reject("there is no key");
      out.emit(record, { value: record.text.toUpperCase() });
    },
  });
  assert.throws(
    () => run(plugin, {}, INPUT),
    ({ tag, val: [first, second] }) => {
      assert.deepEqual([tag, first, second.index], ["reject", { index: 1, reason: "there is no key" }, 2]);
      assert.match(second.reason, /^TypeError: .*\(.*:\d+.*\)$/);
      return true;
    },
  );
});

test("settings that are refused say why", () => {
  const refusing = transform({
    configure({ at }) {
      throw new Error(`at is ${at}`);
    },
  });
  assert.throws(() => run(refusing, { at: 5 }, []), (thrown) => thrown === "at is 5");
});

test("keys lie where clients put them", () => {
  // As Kafka's Java client 4.4.0 placed them.
  for (const [key, count, expect] of [["pelton", 7, 5], ["pelton", 12, 11], ["", 7, 2], ["", 12, 9]]) {
    assert.equal(partitionOfKey(encode(key), count), expect);
  }
  const plugin = partitioner({ partition: (record, count) => partitionOfKey(record.key, count) });
  assert.deepEqual(partitions(plugin, {}, [{ key: "pelton" }, { key: null }], 12), [11, 9]);
});

test("text is as TextDecoder has it", () => {
  const bytes = [
    [...Buffer.from("a ß € 😀 \ufeff")], [0xff], [0xc0, 0x80], [0xe2, 0x82], [0xe2, 0x28, 0xa1], [0xed, 0xa0, 0x80],
    [0xf0, 0x9f, 0x98], [0xf4, 0x90, 0x80, 0x80], [0x80, 0x61], [0xc3],
  [...Buffer.from("x".repeat(9000))],
  ].map((list) => Uint8Array.from(list));
  for (const of of bytes) {
    for (const other of [decodePlainly, decodeByName]) assert.equal(other(of), decode(of), `${of}`);
  }
  for (const of of ["a ß € 😀", "\ud800x", "a".repeat(9000)]) {
    for (const other of [encodePlainly, encodeByName]) assert.deepEqual(other(of), encode(of));
  }
});

const at = (key, value = "x", timestamp = 0) => ({ key, value, timestamp });

test("stores show what the call has written", () => {
  const plugin = stateTransform({
    reads: (record, reads) => reads.key("seen", record.key),
    record(record, stores, out) {
      const count = Number(text(stores.get("seen", record.key)) ?? 0) + 1;
      stores.put("seen", record.key, String(count));
      stores.put("keys", record.key, "");
      if (record.text === "bad") throw new Reject("it is bad");
      const { entries, more } = stores.range("keys", { limit: 2 });
      out.emit(record, { value: `${count} ${entries.map(([key]) => text(key)).join(" ")} ${more}` });
    },
  });
  const run = new StateRun(plugin, {}, { stores: ["seen", "keys"] });
  const values = (given) => run.give(given).map((record) => text(record.value));
  assert.deepEqual(values([at("c"), at("a"), at("b"), at("c")]), ["1 c false", "1 a c false", "1 a b true", "2 a b true"]);
  assert.throws(() => run.give([at("c"), at("c", "bad")]), ({ tag }) => tag === "reject");
  assert.equal(run.entry("seen", "c"), "2");
  assert.deepEqual(values([at("c")]), ["3 a b true"]);
});

test("entries and windows", () => {
  let got;
  const plugin = stateTransform({
    record(record, stores) {
      for (const key of ["a/1", "a/2", "b/1", "b/2", "ä"]) stores.put("s", key, key);
      stores.delete("s", "a/1");
      const keys = ({ entries, more }) => [entries.map(([key, value]) => `${text(key)}=${text(value)}`), more];
      got = [keys(stores.prefix("s", "a/")), keys(stores.range("s", { start: "a/2", end: "b/2", reverse: true }))];
      got.push(stores.deleteRange("s", { start: "b/", limit: 1 }), stores.get("s", "b/1"), text(stores.get("s", "ä")));
      for (const start of [10, 20, 95]) stores.putWindow("w", "k", start, String(start));
      stores.deleteWindow("w", "k", 20);
      stores.putWindow("w", "k", 120, "last");
      got.push(stores.window("w", "k", 10), stores.window("w", "k", 20));
      got.push(stores.windows("w", [["k", 95], ["l", 95]]).map(text));
      const { windows, more } = stores.windowsOf("w", "k", 0, 1000, { reverse: true, limit: 1 });
      got.push(windows.map(([start, value]) => `${start}=${text(value)}`), more);
    },
  });
  new StateRun(plugin, {}, { stores: ["s"], windows: { w: 100 } }).give([at("k")]);
  const expect = [[["a/2=a/2"], false], [["b/1=b/1", "a/2=a/2"], false], true, null, "ä"];
  assert.deepEqual(got, [...expect, null, null, ["95", null], ["120=last"], true]);
});

test("timers fire before the record that brings their time", () => {
  const plugin = timerTransform({
    record(record, stores, timers, out) {
      timers.set(STREAM_TIME, record.key, record.timestamp + 10);
      timers.set(WALL_CLOCK, record.key, timers.clock() + 10);
      if (record.text === "cancel") timers.cancel(WALL_CLOCK, record.key);
      stores.put("seen", record.key, record.value);
      out.keep(record);
    },
    fire(timer, stores, timers, emit) {
      if (text(timer.name) === "bad") throw new Reject("it is bad");
      emit.record(timer.name, stores.get("seen", timer.name), timer.at, { headers: [["on", timer.domain]], to: 1 });
    },
  });
  const run = new TimerRun(plugin, {}, { stores: ["seen"] });
  assert.deepEqual(run.give([at("a", "1"), at("b", "cancel", 5)]).map((record) => record.timestamp), [0, 5]);
  const [fired, kept] = run.give([at("c", "3", 10)]);
  assert.deepEqual([text(fired.key), text(fired.value), fired.timestamp, fired.output], ["a", "1", 10, 1]);
  assert.deepEqual(fired.headers.map(([name, value]) => [name, text(value)]), [["on", "stream-time"]]);
  assert.equal(text(kept.value), "3");
  assert.deepEqual(run.tick(9), []);
  assert.deepEqual(run.tick(10).map((record) => text(record.key)), ["a", "c"]);
  run.give([at("bad", "", 11)]);
  const rejected = { tag: "reject", val: [{ index: 2, reason: "it is bad" }] };
  assert.throws(() => run.give([at("d", "", 30)]), (thrown) => (assert.deepEqual(thrown, rejected), true));
  assert.equal(run.timers.kept.timers.size, 4);
});

test("values of groups", () => {
  const number = (bytes) => Number(text(bytes));
  const sum = aggregator({
    create: () => "0",
    add(value, record) {
      if (record.value === null) throw new Reject("there is no value");
      return String(number(value) + number(record.value));
    },
    subtract: (value, record) => String(number(value) - number(record.value)),
    merge: (value, other) => String(number(value) + number(other)),
  });
  const run = new AggregateRun(sum, {});
  assert.deepEqual([run.add("a", { value: "5" }), run.add("b", { value: "7" })], ["5", "7"]);
  assert.throws(() => run.add("a", { value: null }), ({ tag }) => tag === "reject");
  assert.deepEqual([run.subtract("a", { value: "2" }), run.merge("a", "b")], ["3", "10"]);
  const bare = new AggregateRun(aggregator({ add: (value, record) => text(value) + record.text }), {});
  assert.equal(bare.add("a", { value: "x" }), "x");
  assert.throws(() => bare.subtract("a", { value: "x" }), ({ tag, val }) => tag === "fatal" && val.includes("tables"));
  assert.ok(Fatal.prototype instanceof Error);
});

test("times are numbers, and cross the border as they must", () => {
  const plugin = transform({ record: (record, out) => out.emit(record, { timestamp: record.timestamp + 1 }) });
  const output = plugin.process(batchOf([{ value: "a", timestamp: 4 }]));
  assert.deepEqual(output.timestamps, BigInt64Array.of(5n));
});
