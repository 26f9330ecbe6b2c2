"""Runs a plugin without pelton, as pelton would: for unit tests."""

from dataclasses import dataclass, field as dataclass_field

from . import aggregate, state, timers
from .memory import MemoryStores, MemoryTimers
from .out import HeaderColumns, Slices
from .record import NULL, field, records
from .stores import Column, as_bytes, strings
from .timers import NO_SOURCE, STREAM_TIME, WALL_CLOCK
from .transform import Rejected

__all__ = ["AggregateRun", "Rejected", "StateRun", "TestRecord", "TimerRun", "partitions", "run"]


@dataclass
class TestRecord:
    """A record to give, or one that came out. `key` and `value` are bytes or None."""

    #: Not a test, though its name begins as those of tests do.
    __test__ = False

    value: bytes | None = None
    key: bytes | None = None
    timestamp: int = 0
    headers: list = dataclass_field(default_factory=list)
    #: The output that it goes to. Means nothing in a record that is given.
    output: int = 0


class Batch:
    """The record `batch` of the contract: the topic `test`, partition 0, from offset 0."""

    def __init__(self, given):
        data = bytearray()

        def push(column, content):
            column.push(len(data), NULL if content is None else len(content))
            data.extend(content or b"")

        self.topic, self.partition = "test", 0
        self.offsets = list(range(len(given)))
        self.timestamps = [record.timestamp for record in given]
        self.keys, self.values, headers = Slices(), Slices(), HeaderColumns()
        for record in given:
            push(self.keys, record.key)
            push(self.values, record.value)
            headers.counts.append(len(record.headers))
            for name, value in record.headers:
                push(headers.names, name.encode())
                push(headers.values, value)
        self.headers = headers if headers.names.offsets else None
        self.data = bytes(data)


def run(plugin, given, **config):
    """Configures a new plugin and gives it the records as one batch. Answers what it emits; raises what it raises,
    `Rejected` with pairs of an index and a reason if it rejects records."""
    instance = plugin()
    instance.configure(config)
    batch = Batch(given)
    return expand(batch, instance.batch(batch))


def partitions(plugin, given, count, **config):
    """Configures a new partitioner and asks it where the records go."""
    instance = plugin()
    instance.configure(config)
    placed = instance.batch(Batch(given), count)
    assert len(placed) == len(given), "a partition for each record"
    assert all(0 <= partition < count for partition in placed), f"{placed} of {count} partitions"
    return placed


class StateRun:
    """A plugin with state, and its stores, which stay from batch to batch. A batch that fails leaves them as they were.

        run = StateRun(Count, stores=["seen"])
        out = run.give([TestRecord(key=b"a"), TestRecord(key=b"a")])
        assert run.stores.entries["seen"] == {b"a": b"2"}

    `windows` are stores of windows, each with its retention in milliseconds."""

    def __init__(self, plugin, *, stores=(), windows=None, **config):
        self.plugin = plugin()
        self.plugin.configure(config)
        self.stores = MemoryStores(stores, windows or {})

    def give(self, given):
        """Gives the records as one batch. Answers what it emits; raises as `run` does."""
        batch = Batch(given)
        with self.stores.or_as_before():
            return expand(batch, state.process(self.plugin, batch, self.stores))


class TimerRun:
    """A plugin with timers, its stores, its timers (`timers.set_for`: when each is due, by domain and name) and the clock, which
    stands at 0. A call that fails leaves them as they were."""

    def __init__(self, plugin, *, stores=(), windows=None, **config):
        self.plugin = plugin()
        self.plugin.configure(config)
        self.stores = MemoryStores(stores, windows or {})
        self.timers = MemoryTimers()
        self.stream_time = -1

    def give(self, given):
        """Gives the records one by one, and has timers on stream time fire before those that bring it there. What comes out."""
        emitted = []
        for record in given:
            self.stream_time = max(self.stream_time, record.timestamp)
            emitted += self._fire(STREAM_TIME, self.stream_time)
            batch = Batch([record])
            with self.stores.or_as_before(), self.timers.or_as_before():
                emitted += expand(batch, timers.process(self.plugin, batch, self.stores, self.timers))
        return emitted

    def tick(self, clock):
        """The clock goes on. What comes of timers on it that are due."""
        self.timers.now = clock
        return self._fire(WALL_CLOCK, clock)

    def _fire(self, domain, now):
        with self.stores.or_as_before(), self.timers.or_as_before():
            due = self.timers.take(domain, now)
            if not due:
                return []
            names, at = Column([name for _, name in due]), [at for at, _ in due]
            return expand(Batch([]), timers.fire(self.plugin, domain, names, at, self.stores, self.timers))


class AggregateRun:
    """An aggregator, and the value of each group."""

    def __init__(self, plugin, **config):
        self.plugin = plugin()
        self.plugin.configure(config)
        self.values = {}

    def add(self, group, record):
        """Adds a record to a group. Its value then."""
        return self._fold(self.plugin.add, group, record)

    def subtract(self, group, record):
        """Takes a record out of a group. Its value then."""
        return self._fold(self.plugin.subtract, group, record)

    def merge(self, into, other):
        """One group takes in another one, which ends. Its value then."""
        into, other = as_bytes(into), as_bytes(other)
        merged = aggregate.merge(self.plugin, Column([self.values[into]]), Column([self.values[other]]))
        del self.values[other]
        (self.values[into],) = strings(merged)
        return self.values[into]

    def _fold(self, function, group, record):
        group = as_bytes(group)
        before = self.values[group] if group in self.values else as_bytes(self.plugin.create())
        given = TestRecord(record.value, group, record.timestamp)
        (self.values[group],) = strings(aggregate.fold(function, Column([before]), Batch([given]), [0]))
        return self.values[group]


def expand(batch, output):
    """The records that an answer emits."""
    data = batch.data + output.data
    of = list(records(batch))
    emitted = [_inherited(of, source) for source in output.source]
    header = 0
    for i, record in enumerate(emitted):
        if output.keys is not None:
            record.key = field(data, output.keys, i)
        if output.values is not None:
            record.value = field(data, output.values, i)
        if output.timestamps is not None:
            record.timestamp = output.timestamps[i]
        if output.headers is not None:
            names, values, count = output.headers.names, output.headers.values, output.headers.counts[i]
            span = range(header, header + count)
            record.headers = [(field(data, names, j).decode(), field(data, values, j)) for j in span]
            header += count
        if output.route is not None:
            record.output = output.route[i]
    return emitted


def _inherited(of, source):
    if source == NO_SOURCE:
        return TestRecord()
    return TestRecord(of[source].value, of[source].key, of[source].timestamp, of[source].headers)
