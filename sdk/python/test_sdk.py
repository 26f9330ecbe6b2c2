"""cd sdk/python && python3 -m unittest"""

import unittest

import pelton
from pelton.testing import AggregateRun, Rejected, StateRun, TestRecord, TimerRun, partitions, run

INPUT = [
    TestRecord(b"v0", b"k0", 1),
    TestRecord(b"v1", None, 2, [("a", b"1")]),
    TestRecord(None, b"k2", 3, [("b", b"1"), ("c", None)]),
]


def emitted(emit):
    class Plugin(pelton.Transform):
        def batch(self, batch):
            out = pelton.Out(batch)
            emit(list(pelton.records(batch)), out)
            return out.finish()

    def shown(record):
        headers = ",".join(f"{name}:{value}" for name, value in record.headers)
        return f"{record.output}/{record.timestamp}/{record.key}={record.value}[{headers}]".replace("b'", "'").replace("'", "")

    return [shown(record) for record in run(Plugin, INPUT)]


class Sdk(unittest.TestCase):
    def test_what_is_kept_is_inherited(self):
        got = emitted(lambda r, out: (out.keep(r[2]), out.keep(r[0])))
        self.assertEqual(got, ["0/3/k2=None[b:1,c:None]", "0/1/k0=v0[]"])

    def test_a_column_begins_with_the_first_change(self):
        def emit(r, out):
            out.keep(r[0])
            out.emit(r[1], value="new")
            out.keep(r[2])
            out.emit(r[2], key=b"key", value=b"", timestamp=9)
            out.emit(r[0], key=None, value=None)
            out.keep(r[1])

        got = emitted(emit)
        self.assertEqual(got, [
            "0/1/k0=v0[]", "0/2/None=new[a:1]", "0/3/k2=None[b:1,c:None]", "0/9/key=[b:1,c:None]",
            "0/1/None=None[]", "0/2/None=v1[a:1]",
        ])

    def test_headers_and_routes(self):
        def emit(r, out):
            out.keep(r[2])
            out.emit(r[1], headers=[*r[1].headers, ("x", b"2")], to=3)
            out.emit(r[2], headers=[("y", b"")])
            out.keep(r[1])

        got = emitted(emit)
        self.assertEqual(got, ["0/3/k2=None[b:1,c:None]", "3/2/None=v1[a:1,x:2]", "0/3/k2=None[y:]", "0/2/None=v1[a:1]"])

    def test_records_read_their_headers(self):
        class Plugin(pelton.Transform):
            def record(self, record, out):
                out.emit(record, value=repr((record.header("c"), record.header("b"), record.offset, record.topic)))

        self.assertEqual(run(Plugin, INPUT)[2].value, b"(None, b'1', 2, 'test')")

    def test_whatever_is_raised_rejects_its_record(self):
        class Plugin(pelton.Transform):
            def record(self, record, out):
                if record.key is None:
                    raise pelton.Reject("there is no key")
                out.emit(record, value=record.value.upper())

        with self.assertRaises(Rejected) as raised:
            run(Plugin, INPUT)
        (first, why), (second, other) = raised.exception.rejections
        self.assertEqual((first, why, second), (1, "there is no key", 2))
        self.assertRegex(other, "^AttributeError: 'NoneType' .*line [0-9]+\\)$")

    def test_keys_lie_where_clients_put_them(self):
        # As Kafka's Java client 4.4.0 placed them.
        for key, count, expect in [(b"pelton", 7, 5), (b"pelton", 12, 11), (b"", 7, 2), (None, 12, 9)]:
            self.assertEqual(pelton.partition_of_key(key, count), expect)

        class Plugin(pelton.Partitioner):
            def partition(self, record, partitions):
                return pelton.partition_of_key(record.key, partitions)

        self.assertEqual(partitions(Plugin, [TestRecord(key=b"pelton")], 12), [11])


def record(key, value=b"x", timestamp=0):
    return TestRecord(value, key, timestamp)


class Worlds(unittest.TestCase):
    def test_stores_show_what_the_call_has_written(self):
        class Plugin(pelton.StateTransform):
            def reads(self, record, reads):
                reads.key("seen", record.key)

            def record(self, record, stores, out):
                count = int(stores.get("seen", record.key) or 0) + 1
                stores.put("seen", record.key, str(count))
                stores.put("keys", record.key, b"")
                if record.value == b"bad":
                    raise pelton.Reject("it is bad")
                found, more = stores.range("keys", limit=2)
                out.emit(record, value=f"{count} {b' '.join(key for key, _ in found).decode()} {more}")

        run = StateRun(Plugin, stores=["seen", "keys"])
        got = [emitted.value for emitted in run.give([record(b"c"), record(b"a"), record(b"b"), record(b"c")])]
        self.assertEqual(got, [b"1 c False", b"1 a c False", b"1 a b True", b"2 a b True"])
        with self.assertRaises(Rejected):
            run.give([record(b"c"), record(b"c", b"bad")])
        self.assertEqual(run.stores.entries["seen"], {b"a": b"1", b"b": b"1", b"c": b"2"})
        self.assertEqual(run.give([record(b"c")])[0].value, b"3 a b True")

    def test_entries_and_windows(self):
        class Plugin(pelton.StateTransform):
            def record(self, record, stores, out):
                for key in ("a/1", "a/2", "b/1", "b/2"):
                    stores.put("s", key, key)
                stores.delete("s", "a/1")
                got = [stores.prefix("s", "a/"), stores.range("s", "a/2", "b/2", reverse=True)]
                got += [stores.delete_range("s", "b/", limit=1), stores.get("s", "b/1"), stores.get("s", "b/2")]
                for start in (10, 20, 95):
                    stores.put_window("w", "k", start, str(start))
                stores.delete_window("w", "k", 20)
                stores.put_window("w", "k", 120, "last")
                got += [stores.window("w", "k", 10), stores.window("w", "k", 20), stores.windows("w", [("k", 95), ("l", 95)])]
                got.append(stores.windows_of("w", "k", 0, 1000, reverse=True, limit=1))
                out.emit(record, value=repr(got))

        got = StateRun(Plugin, stores=["s"], windows={"w": 100}).give([record(b"k")])[0].value
        expect = [([(b"a/2", b"a/2")], False), ([(b"b/1", b"b/1"), (b"a/2", b"a/2")], False), True, None, b"b/2"]
        expect += [None, None, [b"95", None], ([(120, b"last")], True)]
        self.assertEqual(got.decode(), repr(expect))

    def test_timers_fire_before_the_record_that_brings_their_time(self):
        class Plugin(pelton.TimerTransform):
            def record(self, record, stores, timers, out):
                timers.set(pelton.STREAM_TIME, record.key, record.timestamp + 10)
                timers.set(pelton.WALL_CLOCK, record.key, timers.clock() + 10)
                if record.value == b"cancel":
                    timers.cancel(pelton.WALL_CLOCK, record.key)
                stores.put("seen", record.key, record.value)
                out.keep(record)

            def fire(self, timer, stores, timers, emit):
                if timer.name == b"bad":
                    raise pelton.Reject("it is bad")
                emit.record(timer.name, stores.get("seen", timer.name), timer.at, headers=[("on", timer.domain)], to=1)

        run = TimerRun(Plugin, stores=["seen"])
        self.assertEqual([r.timestamp for r in run.give([record(b"a", b"1"), record(b"b", b"cancel", 5)])], [0, 5])
        fired, kept = run.give([record(b"c", b"3", 10)])
        self.assertEqual(fired, TestRecord(b"1", b"a", 10, [("on", b"STREAM_TIME")], 1))
        self.assertEqual(kept.value, b"3")
        self.assertEqual(run.tick(9), [])
        self.assertEqual([r.key for r in run.tick(10)], [b"a", b"c"])
        self.assertEqual(run.timers.set_for, {("STREAM_TIME", b"b"): 15, ("STREAM_TIME", b"c"): 20})
        run.give([record(b"bad", b"", 11)])
        with self.assertRaises(Rejected) as raised:
            run.give([record(b"d", b"", 30)])
        self.assertEqual(raised.exception.rejections, [(2, "it is bad")])
        self.assertEqual(len(run.timers.set_for), 4)

    def test_values_of_groups(self):
        class Plugin(pelton.Aggregator):
            def create(self):
                return "0"

            def add(self, value, record):
                if record.value is None:
                    raise pelton.Reject("there is no value")
                return str(int(value) + int(record.value))

            def subtract(self, value, record):
                return str(int(value) - int(record.value))

            def merge(self, value, other):
                return str(int(value) + int(other))

        run = AggregateRun(Plugin)
        self.assertEqual(run.add("a", record(None, b"5")), b"5")
        self.assertEqual(run.add("b", record(None, b"7")), b"7")
        with self.assertRaises(Rejected):
            run.add("a", record(None, None))
        self.assertEqual(run.subtract("a", record(None, b"2")), b"3")
        self.assertEqual(run.merge("a", "b"), b"10")
        self.assertEqual(run.values, {b"a": b"10"})

        class Bare(pelton.Aggregator):
            def add(self, value, record):
                return value + record.value

        bare = AggregateRun(Bare)
        self.assertEqual(bare.add("a", record(None)), b"x")
        with self.assertRaises(pelton.Fatal):
            bare.subtract("a", record(None))


if __name__ == "__main__":
    unittest.main()
