// node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { Out, Reject, partitionOfKey, partitioner, records, transform } from "./index.js";
import { batchOf, partitions, run, text } from "./testing.js";
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
