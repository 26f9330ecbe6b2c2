"""An aggregator: `add` puts a record into the value of its key, or of a window of it. The value is the result."""

import pelton


class Plugin(pelton.Aggregator):
    """The longest value of each key."""

    def add(self, value, record):
        other = record.value
        if other is None:
            raise pelton.Reject("there is no value")
        return other if len(other) > len(value) else value

    def merge(self, value, other):
        """Two sessions of a key have met."""
        return other if len(other) > len(value) else value


WitWorld = pelton.export(Plugin)
