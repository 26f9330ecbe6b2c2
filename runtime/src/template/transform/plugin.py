"""A transform: `record` sees a record and says what to emit."""

import pelton


class Plugin(pelton.Transform):
    """Capitals for every value that is longer than a limit; shorter ones are dropped."""

    def configure(self, config):
        """Called once, with the settings of plugin.toml and pipeline.toml, as text."""
        self.longer_than = int(config["longer_than"])

    def record(self, record, out):
        value = record.value
        if value is None:
            raise pelton.Reject("there is no value")
        if len(value) > self.longer_than:
            out.emit(record, value=value.upper())


WitWorld = pelton.export(Plugin)
