"""A transform with timers: `record` sees a record, `fire` a timer that is due."""

import pelton


class Plugin(pelton.TimerTransform):
    """Says of each key that no record of it has come for a while."""

    def configure(self, config):
        """Called once, with the settings of plugin.toml and pipeline.toml, as text."""
        self.after_ms = int(config["after_ms"])

    def record(self, record, stores, timers, out):
        if record.key is None:
            raise pelton.Reject("there is no key")
        # A timer for each key, which every record moves.
        timers.set(pelton.WALL_CLOCK, record.key, timers.clock() + self.after_ms)

    def fire(self, timer, stores, timers, emit):
        emit.record(timer.name, b"quiet", timer.at)


WitWorld = pelton.export(Plugin)
