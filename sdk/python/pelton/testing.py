"""Runs a plugin without pelton, as pelton would: for unit tests."""

from dataclasses import dataclass, field as dataclass_field

from .out import HeaderColumns, Slices
from .record import NULL, field, records
from .transform import Rejected

__all__ = ["Rejected", "TestRecord", "partitions", "run"]


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


def expand(batch, output):
    """The records that an answer emits."""
    data = batch.data + output.data
    of = list(records(batch))
    emitted = [TestRecord(r.value, r.key, r.timestamp, r.headers) for r in (of[i] for i in output.source)]
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
