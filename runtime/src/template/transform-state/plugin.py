"""A transform with state: `record` sees a record and the stores of its partition, and says what to emit."""

import pelton

#: What plugin.toml calls the store.
SEEN = "seen"


class Plugin(pelton.StateTransform):
    """Counts the records of each key. What is written to a store counts if and only if what is emitted does, through any crash."""

    def reads(self, record, reads):
        """What `record` will read: all of a batch is asked for at once."""
        if record.key is not None:
            reads.key(SEEN, record.key)

    def record(self, record, stores, out):
        key = record.key
        if key is None:
            raise pelton.Reject("there is no key")
        count = str(int(stores.get(SEEN, key) or 0) + 1)
        stores.put(SEEN, key, count)
        out.emit(record, value=count)


WitWorld = pelton.export(Plugin)
