"""The world `aggregator`: folds records into one value for each key, or for each window of a key."""

from .record import records
from .stores import Column, as_bytes, strings
from .transform import Fatal, Rejected, Retry, reason


class Aggregator:
    """An aggregator. The value is at once the result that the node emits; the server keeps it."""

    def configure(self, config):
        """Takes the settings, texts by name. Called once, before anything else. An exception refuses the deployment."""

    def create(self):
        """The value of a group without records."""
        return b""

    def add(self, value, record):
        """The value once a record is in it. The record's key is that of the group."""
        raise NotImplementedError

    def subtract(self, value, record):
        """The value without a record that was added before: where a table is aggregated, rows are replaced, and move to other
        groups."""
        raise Fatal("this aggregator cannot take records out again, so it is not for tables")

    def merge(self, value, other):
        """One value of two of one key: sessions that meet. `value` is the earlier one."""
        raise Fatal("this aggregator cannot merge values, so it is not for sessions")


def fold(function, values, batch, groups):
    """Folds record `i` of the batch into the value `groups[i]`; the value behind each record, as a column."""
    now, out, rejections = [value or b"" for value in strings(values)], [], []
    for record, group in zip(records(batch), groups):
        try:
            now[group] = as_bytes(function(now[group], record))
            out.append(now[group])
        except (Retry, Fatal):
            raise
        except Exception as error:
            rejections.append((record.index, reason(error)))
    if rejections:
        raise Rejected(rejections)
    return Column(out)


def merge(instance, left, right):
    """One value of each two, as a column."""
    pairs = zip(strings(left), strings(right))
    return Column([as_bytes(instance.merge(one or b"", other or b"")) for one, other in pairs])
