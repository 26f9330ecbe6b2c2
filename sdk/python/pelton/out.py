"""What a transform answers. A column exists only from the first record that changes it: what nobody touches is inherited."""

from .record import NULL, header_range, records


class Keep:
    """The type of `KEEP`."""

    def __repr__(self):
        return "KEEP"


#: What a record inherits from the one that it is made of.
KEEP = Keep()


class Slices:
    """A column: where each field is."""

    __slots__ = ("lengths", "offsets")

    def __init__(self):
        self.offsets = []
        self.lengths = []

    def push(self, offset, length):
        self.offsets.append(offset)
        self.lengths.append(length)

    def inherit(self, column, index):
        """Takes a field as it is in the batch; null if the batch was given without this column."""
        if index < len(column.lengths):
            self.push(column.offsets[index], column.lengths[index])
        else:
            self.push(0, NULL)


class HeaderColumns:
    """The headers of all records: how many each has, and two columns."""

    __slots__ = ("counts", "names", "values")

    def __init__(self):
        self.counts = []
        self.names = Slices()
        self.values = Slices()


class Output:
    """The record `output` of the contract."""

    __slots__ = ("data", "headers", "keys", "route", "source", "timestamps", "values")

    def __init__(self):
        self.source = []
        self.data = b""
        self.keys = self.values = self.timestamps = self.headers = self.route = None


class Out:
    """Collects what a transform emits for one batch."""

    def __init__(self, batch):
        self._batch = batch
        self._base = len(batch.data)
        self._data = bytearray()
        self._output = Output()

    def keep(self, record):
        """Emits the record as it is."""
        self.emit(record)

    def emit(self, record, *, key=KEEP, value=KEEP, timestamp=KEEP, headers=KEEP, to=0):
        """Emits the record, with what is given in place of its own: `key` and `value` are bytes, str or None (null: a
        delete, in a compacted topic), `headers` pairs of a name and bytes, str or None, `timestamp` milliseconds, and
        `to` is the index of an output in plugin.toml."""
        output, batch, index = self._output, self._batch, record.index
        if key is not KEEP and output.keys is None:
            output.keys = self._backfill(batch.keys)
        if value is not KEEP and output.values is None:
            output.values = self._backfill(batch.values)
        if timestamp is not KEEP and output.timestamps is None:
            output.timestamps = [batch.timestamps[source] for source in output.source]
        if headers is not KEEP and output.headers is None:
            output.headers = self._backfill_headers()
        if to != 0 and output.route is None:
            output.route = [0] * len(output.source)
        output.source.append(index)
        self._field(output.keys, batch.keys, index, key)
        self._field(output.values, batch.values, index, value)
        if output.timestamps is not None:
            output.timestamps.append(batch.timestamps[index] if timestamp is KEEP else timestamp)
        if output.headers is not None:
            self._headers(output.headers, record, headers)
        if output.route is not None:
            output.route.append(to)

    def finish(self):
        """The answer."""
        self._output.data = bytes(self._data)
        return self._output

    def _field(self, column, inherited, index, given):
        if column is None:
            return
        if given is KEEP:
            column.inherit(inherited, index)
        else:
            column.push(*self._append(given))

    def _append(self, given):
        if given is None:
            return 0, NULL
        if isinstance(given, str):
            given = given.encode()
        start = len(self._data)
        self._data += given
        return self._base + start, len(given)

    def _headers(self, columns, record, given):
        if given is KEEP:
            inherited, of = self._batch.headers, header_range(record)
            columns.counts.append(len(of))
            for i in of:
                columns.names.inherit(inherited.names, i)
                columns.values.inherit(inherited.values, i)
            return
        given = list(given)
        columns.counts.append(len(given))
        for name, value in given:
            columns.names.push(*self._append(name))
            columns.values.push(*self._append(value))

    def _backfill(self, column):
        """The column as if it had been there from the first record on."""
        filled = Slices()
        for source in self._output.source:
            filled.inherit(column, source)
        return filled

    def _backfill_headers(self):
        columns = HeaderColumns()
        if self._output.source:
            of = list(records(self._batch))
            for source in self._output.source:
                self._headers(columns, of[source], KEEP)
        return columns
