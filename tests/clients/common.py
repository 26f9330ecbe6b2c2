"""What the Python client programs share: the records, the names, and the lines they print.

A program prints one line per scenario: `ok NAME DETAIL`, `FAIL NAME DETAIL` or `skip NAME REASON`,
and exits with 1 when a scenario failed.
"""
import contextlib
import os
import pathlib
import sys
import time
import traceback
import urllib.parse
import uuid
from collections import namedtuple

HERE = pathlib.Path(__file__).parent
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ACKS = [("0", 0), ("1", 1), ("all", -1)]
ORDERED = 500  # records of the idempotent scenario
WAIT = 30.0  # seconds that a scenario may wait for something that must come
COMMITS = [True, False, True, True, False, True]  # the transactions of a producer: committed or aborted
NO_RETENTION = {"retention.ms": "-1"}  # the records' timestamps lie years back

Record = namedtuple("Record", "timestamp key value headers")


def _bytes(text):
    return None if text == "-" else urllib.parse.unquote_to_bytes(text)


def _record(line):
    timestamp, key, value, repeat, *headers = line.rstrip("\n").split("\t")
    value = _bytes(value)
    headers = [h.split("=", 1) for h in headers]
    return Record(int(timestamp), _bytes(key), value and value * int(repeat),
                  [(_bytes(name).decode(), _bytes(v)) for name, v in headers])


RECORDS = [_record(line) for line in open(HERE / "records.tsv", encoding="ascii")
           if not line.startswith("#")]


def holes():
    """The compacted topic of holes.py, its number of offsets, and what is left in it: [(offset, key, value)]."""
    first, *lines = open(sys.argv[3], encoding="ascii").read().splitlines()
    topic, end = first.split("\t")
    left = [line.split("\t") for line in lines]
    return topic, int(end), [(int(offset), _bytes(key), _bytes(value)) for offset, key, value in left]


def holes_starts(end):
    """Where to start reading: the beginning, and offsets of which most are gone."""
    return range(0, end, 23)


def check_holes(start, got):
    """`got`: what a consumer that starts at `start` reads, as `holes` has it."""
    equal(got, [left for left in holes()[2] if left[0] >= start], f"records from {start}")


def timestamps(records):
    """Timestamps to look up, and the first offset whose timestamp is not smaller (None: there is none)."""
    return {t: next((i for i, r in enumerate(records) if r.timestamp >= t), None)
            for r in records for t in (r.timestamp - 1, r.timestamp, r.timestamp + 1)}


def placed():
    """Keys that clients place by themselves, as they do unless told otherwise. run.py looks where they are."""
    return [b"key-%d" % i for i in range(300)] + [None] * 30


def routed():
    """Keys that are written to a topic which places them itself."""
    return [b"key-%d" % i for i in range(50)]


def produce_cases():
    """(scenario name, codec, acks, partition of the produce topic): partition = 3 * codec + acks."""
    for c, codec in enumerate(CODECS):
        for a, (name, acks) in enumerate(ACKS):
            yield f"produce-{codec}-{name}", codec, acks, 3 * c + a


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: got {str(actual)[:300]}, expected {str(expected)[:300]}")


def check_records(got, expected, first=0):
    """`got`: list of (offset, Record)."""
    equal([o for o, _ in got], list(range(first, first + len(expected))), "offsets")
    for (offset, record), want in zip(got, expected):
        for field in Record._fields:
            equal(getattr(record, field), getattr(want, field), f"{field} at offset {offset}")
    return f"{len(got)} records"


def check_ordered(got, first=0):
    """`got`: list of (offset, value) of the idempotent scenario."""
    equal(got, [(i, b"ordered %d" % i) for i in range(first, ORDERED)], "records")
    return f"{len(got)} records in order"


def in_transaction(number, partition):
    """Values that transaction `number` writes to `partition`."""
    return [b"transaction %d partition %d record %d" % (number, partition, i) for i in range(5)]


def transacted(partition, isolation, transactions=len(COMMITS)):
    """Values of `partition` that a consumer with this isolation level sees after so many transactions."""
    return [value for number, commit in enumerate(COMMITS[:transactions]) if commit or isolation == "read_uncommitted"
            for value in in_transaction(number, partition)]


def to_transform(partition):
    """Values of `partition` that consume-transform-produce reads; it writes them in capitals, seven in a transaction."""
    return [b"input %d %d" % (partition, i) for i in range(10)]


def check_transformed(partition, committed, every):
    """`committed`, `every`: values of the output for each isolation level. One transaction was aborted and repeated."""
    equal(committed, [v.upper() for v in to_transform(partition)], f"read committed of partition {partition}")
    again = [v for v in every if every.count(v) > 1]
    once = [v for v in committed if v not in again]
    equal([v for v in every if v not in again], once, f"written once to partition {partition}")
    equal(sorted(again), sorted(2 * [v for v in committed if v in again]), f"written twice to partition {partition}")
    return len(again) // 2


def until(what, attempt, wait=WAIT):
    """Calls `attempt` until it returns something true."""
    end = time.monotonic() + wait
    while True:
        result = attempt()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"no {what() if callable(what) else what} within {wait} s")
        time.sleep(0.02)


def eventually(attempt, expected, what, wait=WAIT):
    """Like `equal`, but `attempt` may need time: Kafka answers a commit before it has written all markers."""
    end = time.monotonic() + wait
    while (actual := attempt()) != expected and time.monotonic() < end:
        time.sleep(0.02)
    equal(actual, expected, what)


class Suite:
    def __init__(self, client, version):
        self.bootstrap = sys.argv[1] if len(sys.argv) > 1 else os.environ["BOOTSTRAP_SERVERS"]
        self.prefix = f"{client}-{uuid.uuid4().hex[:8]}"
        self.failed = 0
        print(f"# {client} {version} on {self.bootstrap}, names start with {self.prefix}", flush=True)

    def name(self, what):
        return f"{self.prefix}-{what}"

    def report(self, state, name, detail=""):
        self.failed += state == "FAIL"
        print(state, name, " ".join(str(detail or "").split())[:400], flush=True)

    def run(self, name, scenario, *args):
        with self._scenario(name) as outcome:
            outcome.append(scenario(*args))

    async def run_async(self, name, scenario):
        with self._scenario(name) as outcome:
            outcome.append(await scenario)

    @contextlib.contextmanager
    def _scenario(self, name):
        start, outcome = time.monotonic(), []
        try:
            yield outcome
        except Exception as error:  # a scenario that fails must not hide the next one
            program = [f for f in traceback.extract_tb(error.__traceback__) if pathlib.Path(f.filename).parent == HERE]
            self.report("FAIL", name, f"{type(error).__name__}: {error} (at {program[-1].name}:{program[-1].lineno})")
        else:
            self.report("ok", name, f"{outcome[0] or ''} {time.monotonic() - start:.2f}s")

    def skip(self, name, reason):
        self.report("skip", name, reason)

    def done(self):
        sys.exit(1 if self.failed else 0)
