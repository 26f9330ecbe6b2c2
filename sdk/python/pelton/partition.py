"""The world `partitioner`: which partition of its topic a record belongs to."""

from .record import records

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


class Partitioner:
    """A partitioner. The same record and the same number of partitions must always give the same answer."""

    def configure(self, config):
        """Takes the settings, texts by name. Called once, before anything else. An exception refuses the deployment."""

    def partition(self, record, partitions):
        """The partition of a record: below `partitions`, which is at least 1."""
        raise NotImplementedError

    def batch(self, batch, partitions):
        """Takes a whole batch, and answers a partition for each record. Override it to work on columns."""
        return [self.partition(record, partitions) for record in records(batch)]


def partition_of_key(key, partitions):
    """Where Kafka's Java client puts a key: murmur2. None is taken as an empty key."""
    return (murmur2(key or b"") & 0x7FFFFFFF) % partitions


def murmur2(key):
    """Kafka's hash, with the seed that Kafka uses."""
    value = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        value = value * _M & _MASK ^ (word ^ word >> 24) * _M & _MASK
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    value = (value ^ value >> 13) * _M & _MASK
    return value ^ value >> 15
