"""cd sdk/python && python3 -m unittest"""

import unittest

import pelton
from pelton.testing import Rejected, TestRecord, partitions, run

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


if __name__ == "__main__":
    unittest.main()
