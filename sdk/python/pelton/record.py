"""Records, as views of the columns of a batch: nothing is copied before it is asked for."""

NULL = 0xFFFFFFFF


class Record:
    """One record of a batch."""

    __slots__ = ("_batch", "_header", "index")

    def __init__(self, batch, index, header):
        self._batch = batch
        self._header = header
        self.index = index

    @property
    def key(self):
        """The key as bytes; None for null, and when `needs` in plugin.toml leaves keys out."""
        return field(self._batch.data, self._batch.keys, self.index)

    @property
    def value(self):
        """The value as bytes; None for null, and when `needs` in plugin.toml leaves values out."""
        return field(self._batch.data, self._batch.values, self.index)

    @property
    def timestamp(self):
        """Milliseconds since 1970-01-01 UTC; -1 for none."""
        return self._batch.timestamps[self.index]

    @property
    def offset(self):
        """Its offset; -1 if it comes from no stored record."""
        return self._batch.offsets[self.index]

    @property
    def topic(self):
        """The topic that it was read from."""
        return self._batch.topic

    @property
    def partition(self):
        """The partition that it was read from."""
        return self._batch.partition

    @property
    def headers(self):
        """Name (str) and value (bytes or None) of each header."""
        columns = self._batch.headers
        if columns is None:
            return []
        data, names, values = self._batch.data, columns.names, columns.values
        return [(field(data, names, i).decode(), field(data, values, i)) for i in header_range(self)]

    def header(self, name):
        """The value of the last header of this name; None if there is none."""
        return next((value for other, value in reversed(self.headers) if other == name), None)


def field(data, column, index):
    """Field `index` of a column; None for null, and for a column that was left out."""
    if index >= len(column.lengths):
        return None
    length = column.lengths[index]
    if length == NULL:
        return None
    offset = column.offsets[index]
    return data[offset : offset + length]


def header_range(record):
    """Where the headers of a record are in the columns of headers."""
    columns = record._batch.headers
    count = 0 if columns is None else columns.counts[record.index]
    return range(record._header, record._header + count)


def records(batch):
    """All records of a batch, in order."""
    counts = None if batch.headers is None else batch.headers.counts
    header = 0
    for index in range(len(batch.offsets)):
        yield Record(batch, index, header)
        if counts is not None:
            header += counts[index]
