"""Plugins for pelton in Python.

    import pelton

    class Shout(pelton.Transform):
        def record(self, record, out):
            out.emit(record, value=record.value.upper())

    WitWorld = pelton.export(Shout)

`pelton plugin build` makes a component of it. Without pelton, as in unit tests, `export` does nothing.
"""

from .aggregate import Aggregator
from .export import export
from .log import debug, error, info, warn
from .out import KEEP, Out
from .partition import Partitioner, partition_of_key
from .record import Record, records
from .state import StateTransform
from .stores import Reads, Stores
from .timers import STREAM_TIME, WALL_CLOCK, Emit, Timer, Timers, TimerTransform
from .transform import Fatal, Reject, Retry, Transform

__all__ = [
    "Aggregator", "Emit", "Fatal", "KEEP", "Out", "Partitioner", "Reads", "Record", "Reject", "Retry", "STREAM_TIME",
    "StateTransform", "Stores", "Timer", "TimerTransform", "Timers", "Transform", "WALL_CLOCK",
    "debug", "error", "export", "info", "partition_of_key", "records", "warn",
]
