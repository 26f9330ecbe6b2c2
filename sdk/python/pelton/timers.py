"""The world `transform-timer`: a transform with state that can also act without a record."""

from .out import HeaderColumns, Output, Slices
from .record import NULL
from .state import StateTransform
from .stores import Column, Stores, as_bytes, strings
from .transform import Fatal, Rejected, Retry, reason

#: The largest timestamp of the records that came in this partition. A timer on it fires before the record that brings it there.
STREAM_TIME = "STREAM_TIME"
#: The clock of the machine.
WALL_CLOCK = "WALL_CLOCK"

#: What `source` says of a record that is made of none.
NO_SOURCE = 0xFFFFFFFF


class Timer:
    """A timer that is due."""

    __slots__ = ("at", "domain", "name")

    def __init__(self, domain, name, at):
        #: Whose time it waited for: STREAM_TIME or WALL_CLOCK.
        self.domain = domain
        #: Its name, as bytes.
        self.name = name
        #: When it was due, in milliseconds since 1970-01-01 UTC.
        self.at = at


class Timers:
    """The timers of the node. What is set and cancelled goes to the server at the end of the call, and is dropped if it fails."""

    def __init__(self, host):
        self._host = host
        self._asked = []

    def set(self, domain, name, at):
        """Sets a timer, due at `at` (milliseconds since 1970-01-01 UTC). One of this name in the domain is moved."""
        self._asked.append((domain, as_bytes(name), at))

    def cancel(self, domain, name):
        """Takes a timer away, if it is set."""
        self._asked.append((domain, as_bytes(name), None))

    def clock(self):
        """The clock of the machine, as it was when the call began. Only timers should depend on it: records that are processed
        again see another one."""
        return self._host.clock()

    def flush(self):
        """Tells the server what was asked. Done at the end of each call that succeeds."""
        asked, self._asked = self._asked, []
        at = 0
        while at < len(asked):
            domain, cancels = asked[at][0], asked[at][2] is None
            end = at
            # What is of one kind goes together, in order.
            while end < len(asked) and (asked[end][0], asked[end][2] is None) == (domain, cancels):
                end += 1
            names = Column([name for _, name, _ in asked[at:end]])
            if cancels:
                self._host.cancel(domain, names)
            else:
                self._host.set(domain, names, [due for _, _, due in asked[at:end]])
            at = end


class Emit:
    """Collects what timers emit."""

    def __init__(self):
        output = self._output = Output()
        self._data = bytearray()
        output.keys, output.values, output.timestamps = Slices(), Slices(), []
        output.headers, output.route = HeaderColumns(), []

    def record(self, key, value, timestamp, *, headers=(), to=0):
        """Emits a record: `key` and `value` are bytes, str or None, `headers` pairs of a name and bytes, str or None, and `to` is
        the index of an output in plugin.toml."""
        output, headers = self._output, list(headers)
        output.source.append(NO_SOURCE)
        self._push(output.keys, key)
        self._push(output.values, value)
        output.timestamps.append(timestamp)
        output.headers.counts.append(len(headers))
        for name, content in headers:
            self._push(output.headers.names, name)
            self._push(output.headers.values, content)
        output.route.append(to)

    def finish(self):
        """The answer."""
        self._output.data = bytes(self._data)
        return self._output

    def _push(self, column, content):
        content = as_bytes(content)
        column.push(len(self._data), NULL if content is None else len(content))
        self._data += content or b""


class TimerTransform(StateTransform):
    """A transform with stores and timers. `record` sees a record, `fire` a timer that is due."""

    def record(self, record, stores, timers, out):
        """Takes one record and emits any number of records. One that is not emitted is filtered."""
        raise NotImplementedError

    def fire(self, timer, stores, timers, emit):
        """A timer is due, and is not set any more. An exception is for this timer; `on_error` of the pipeline decides about it."""
        raise NotImplementedError

    def batch(self, batch, stores, timers):
        """Takes a whole batch."""
        self._read_ahead(batch, stores)
        return self._each_record(batch, lambda record, out: self.record(record, stores, timers, out))

    def fire_all(self, domain, names, at, stores, timers):
        """Has timers of a domain fire, in order."""
        emit = Emit()
        for index, (name, due) in enumerate(zip(names, at)):
            try:
                self.fire(Timer(domain, name, due), stores, timers, emit)
            except (Retry, Fatal):
                raise
            except Exception as error:
                raise Rejected([(index, reason(error))]) from error
        return emit.finish()


def process(instance, batch, host, timer_host):
    """One call of a plugin with timers. What it writes and sets counts if it returns."""
    stores, timers = Stores(host), Timers(timer_host)
    output = instance.batch(batch, stores, timers)
    stores.flush()
    timers.flush()
    return output


def fire(instance, domain, names, at, host, timer_host):
    """The same for timers that are due: a column of names, and the times."""
    stores, timers = Stores(host), Timers(timer_host)
    output = instance.fire_all(domain, strings(names), at, stores, timers)
    stores.flush()
    timers.flush()
    return output
