"""The world `transform-state`: a transform that keeps something between records."""

from .record import records
from .stores import Reads, Stores
from .transform import Transform


class StateTransform(Transform):
    """A transform with stores. What it writes is part of the pipeline's transaction: it is there if and only if what it emitted
    is. What it keeps in attributes is a cache and says nothing about a store: a call may be undone."""

    def reads(self, record, reads):
        """Names the keys that `record` will read (`reads.key(store, key)`), so that the server is asked for those of a whole batch
        at once. What is not named is found all the same, with a call of its own."""

    def record(self, record, stores, out):
        """Takes one record and emits any number of records. One that is not emitted is filtered."""
        raise NotImplementedError

    def batch(self, batch, stores):
        """Takes a whole batch. Override it in place of `record` to work on columns."""
        self._read_ahead(batch, stores)
        return self._each_record(batch, lambda record, out: self.record(record, stores, out))

    def _read_ahead(self, batch, stores):
        reads = Reads()
        for record in records(batch):
            self.reads(record, reads)
        stores.read_ahead(reads)


def process(instance, batch, host):
    """One call of a plugin with state. What it writes counts if it returns."""
    stores = Stores(host)
    output = instance.batch(batch, stores)
    stores.flush()
    return output
