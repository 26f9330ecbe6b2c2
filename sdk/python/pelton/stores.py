"""The stores of a node, as a plugin with state works with them."""

from .out import Slices
from .record import NULL

#: Keys that are asked for, or written, with one call of the server.
_CHUNK = 50_000
#: More than a server gives at once.
_ALL = 0x7FFFFFFF


class Column:
    """Byte strings as they cross the border: the record `column` of the contract."""

    __slots__ = ("data", "fields")

    def __init__(self, strings):
        data, fields = bytearray(), Slices()
        for string in strings:
            fields.push(len(data), NULL if string is None else len(string))
            data += string or b""
        self.data, self.fields = bytes(data), fields


def strings(column):
    """Every string of a column; None for null."""
    data, fields = column.data, column.fields
    return [
        None if length == NULL else data[offset : offset + length]
        for offset, length in zip(fields.offsets, fields.lengths)
    ]


def as_bytes(content):
    """Bytes as they are; a text as UTF-8."""
    return content.encode() if isinstance(content, str) else content


class Reads:
    """What `record` is going to read, so that all of a batch is asked for with one call of the server."""

    def __init__(self):
        self.keys = {}

    def key(self, store, key):
        """This key of a store."""
        self.keys.setdefault(store, {})[as_bytes(key)] = None


class Stores:
    """The stores of the node, for one call. Values are remembered while the call lasts, and what is written goes to the server at
    its end, so the border is crossed a few times for a batch and not for each record. What a call that fails has written is
    dropped. Keys and values are bytes, or str (as UTF-8).

    A store that the node is not given, or one of the other kind, ends the instance."""

    def __init__(self, host):
        self._host = host
        self._known = {}
        self._written = {}
        self._windows = {}

    def get(self, store, key):
        """The value of a key as bytes; None if there is none."""
        key, known = as_bytes(key), self._known.setdefault(store, {})
        if key not in known:
            known[key] = strings(self._host.get(store, Column([key])))[0]
        return known[key]

    def put(self, store, key, value):
        """Sets a key to a value; None deletes it."""
        key = as_bytes(key)
        self._known.setdefault(store, {})[key] = as_bytes(value)
        self._written.setdefault(store, {})[key] = None

    def delete(self, store, key):
        """Deletes a key."""
        self.put(store, key, None)

    def read_ahead(self, reads):
        """Asks for all of these at once."""
        for store, wanted in reads.keys.items():
            known = self._known.setdefault(store, {})
            keys = [key for key in wanted if key not in known]
            for chunk in _chunks(keys):
                known.update(zip(chunk, strings(self._host.get(store, Column(chunk)))))

    def range(self, store, start=b"", end=None, *, reverse=False, limit=_ALL):
        """Pairs of key and value from `start` (inclusive) to `end` (exclusive; None: the last key), in the order of keys, and
        whether there are more: a server gives at most 10,000, and about 4 MiB."""
        self._flush(store)
        end = None if end is None else as_bytes(end)
        return _entries(self._host.range(store, as_bytes(start), end, reverse, limit))

    def prefix(self, store, prefix, *, reverse=False, limit=_ALL):
        """The same for the keys that begin with `prefix`."""
        self._flush(store)
        return _entries(self._host.prefix(store, as_bytes(prefix), reverse, limit))

    def delete_range(self, store, start=b"", end=None, *, limit=_ALL):
        """Deletes the first entries of a range, at most `limit` of them and 10,000. Whether there are more."""
        self._flush(store)
        self._known.pop(store, None)
        end = None if end is None else as_bytes(end)
        return self._host.delete_range(store, as_bytes(start), end, limit)

    def window(self, store, key, start):
        """The value of the window of a key that begins at `start`; None if there is none."""
        return self.windows(store, [(key, start)])[0]

    def windows(self, store, windows):
        """The value of each of these windows, pairs of a key and a start, in order."""
        self._flush(store)
        found = []
        for chunk in _chunks(list(windows)):
            keys, starts = Column([as_bytes(key) for key, _ in chunk]), [start for _, start in chunk]
            found += strings(self._host.get_windows(store, keys, starts))
        return found

    def put_window(self, store, key, start, value):
        """Sets a window of a key to a value; None deletes it. One that would be forgotten already is not kept."""
        self._windows.setdefault(store, []).append((as_bytes(key), start, as_bytes(value)))

    def delete_window(self, store, key, start):
        """Deletes a window of a key."""
        self.put_window(store, key, start, None)

    def windows_of(self, store, key, first, last, *, reverse=False, limit=_ALL):
        """Pairs of start and value of the windows of a key that begin from `first` to `last`, both inclusive, in the order of time,
        and whether there are more."""
        self._flush(store)
        found = self._host.windows_of(store, as_bytes(key), first, last, reverse, limit)
        return list(zip(found.starts, strings(found.values))), found.more

    def flush(self):
        """Gives the server what was written. Done at the end of each call that succeeds."""
        for store in {**self._written, **self._windows}:
            self._flush(store)

    def _flush(self, store):
        known = self._known.get(store, {})
        for keys in _chunks(list(self._written.pop(store, ()))):
            self._host.put(store, Column(keys), Column([known[key] for key in keys]))
        for windows in _chunks(self._windows.pop(store, [])):
            keys, starts, values = zip(*windows)
            self._host.put_windows(store, Column(keys), list(starts), Column(values))


def _entries(found):
    return list(zip(strings(found.keys), strings(found.values))), found.more


def _chunks(items):
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))
