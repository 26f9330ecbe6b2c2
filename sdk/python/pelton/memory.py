"""Stores and timers in memory, as a server has them: for unit tests."""

from contextlib import contextmanager
from copy import deepcopy

from .stores import Column, strings

#: Entries that a server gives at once.
_MAX_ENTRIES = 10_000


class _Kept:
    @contextmanager
    def or_as_before(self):
        """What is done within counts if it succeeds."""
        before = deepcopy(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise


class _Entries:
    def __init__(self, pairs, more):
        self.keys, self.values = Column([key for key, _ in pairs]), Column([value for _, value in pairs])
        self.more = more


class _Windows:
    def __init__(self, pairs, more):
        self.starts, self.values, self.more = [start for start, _ in pairs], Column([value for _, value in pairs]), more


class MemoryStores(_Kept):
    """All stores of a node: those of entries by name, and those of windows by name with their retention."""

    def __init__(self, names, retentions):
        #: By store, the value of each key.
        self.entries = {name: {} for name in names}
        #: By store, the value of each key and start.
        self.windows = {name: {} for name in retentions}
        self._retentions = dict(retentions)
        self._times = {name: -1 for name in retentions}

    def get(self, store, keys):
        entries = self._entries(store)
        return Column([entries.get(key) for key in strings(keys)])

    def put(self, store, keys, values):
        entries = self._entries(store)
        for key, value in zip(strings(keys), strings(values), strict=True):
            assert key is not None, "no key is null"
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value

    def range(self, store, start, end, reverse, limit):
        return _Entries(*self._page(store, lambda key: start <= key and (end is None or key < end), reverse, limit))

    def prefix(self, store, prefix, reverse, limit):
        return _Entries(*self._page(store, lambda key: key.startswith(prefix), reverse, limit))

    def delete_range(self, store, start, end, limit):
        found, more = self._page(store, lambda key: start <= key and (end is None or key < end), False, limit)
        for key, _ in found:
            del self.entries[store][key]
        return more

    def get_windows(self, store, keys, starts):
        windows = self._windows_of(store)
        return Column([windows.get(place) for place in zip(strings(keys), starts, strict=True)])

    def put_windows(self, store, keys, starts, values):
        windows = self._windows_of(store)
        for key, start, value in zip(strings(keys), starts, strings(values), strict=True):
            assert key is not None and start >= 0, f"{start} is no time for a window"
            self._times[store] = max(self._times[store], start)
            if not self._is_kept(store, start):
                continue
            if value is None:
                windows.pop((key, start), None)
            else:
                windows[key, start] = value
        self.windows[store] = {place: value for place, value in windows.items() if self._is_kept(store, place[1])}

    def windows_of(self, store, key, first, last, reverse, limit):
        windows = self._windows_of(store)
        found = sorted((at, value) for (of, at), value in windows.items() if of == key and first <= at <= last)
        return _Windows(*_page(found, reverse, limit))

    def _is_kept(self, store, start):
        return start + self._retentions[store] > self._times[store]

    def _page(self, store, wanted, reverse, limit):
        return _page(sorted(pair for pair in self._entries(store).items() if wanted(pair[0])), reverse, limit)

    def _entries(self, store):
        assert store in self.entries, f"the node is not given a store `{store}` of entries"
        return self.entries[store]

    def _windows_of(self, store):
        assert store in self.windows, f"the node is not given a store `{store}` of windows"
        return self.windows[store]


def _page(found, reverse, limit):
    if reverse:
        found.reverse()
    limit = min(limit, _MAX_ENTRIES)
    return found[:limit], len(found) > limit


class MemoryTimers(_Kept):
    """All timers of a node, and the clock."""

    def __init__(self):
        #: When each is due, by domain and name.
        self.set_for = {}
        self.now = 0

    def set(self, domain, names, at):
        for name, due in zip(strings(names), at, strict=True):
            assert due >= 0, f"{due} is no time for a timer"
            self.set_for[domain, name] = due

    def cancel(self, domain, names):
        for name in strings(names):
            self.set_for.pop((domain, name), None)

    def clock(self):
        return self.now

    def take(self, domain, now):
        """Those that are due, pairs of time and name, in that order. They are not set any more."""
        due = sorted((at, name) for (of, name), at in self.set_for.items() if of == domain and at <= now)
        for _, name in due:
            del self.set_for[domain, name]
        return due
