"""The world `transform`: records in, records out."""

from .out import Out
from .record import records


class Reject(Exception):
    """This record cannot be processed, now or later. What happens to it is `on_error` of the pipeline. Any other
    exception does the same, but its text is less kind to whoever reads it."""


class Retry(Exception):
    """Give me the same batch again later."""


class Fatal(Exception):
    """Stop the pipeline."""


class Rejected(Exception):
    """Some records of a batch were rejected: pairs of an index and a reason."""

    def __init__(self, rejections):
        super().__init__(rejections)
        self.rejections = rejections


class Transform:
    """A transform. `record` sees a record and says what to emit."""

    def configure(self, config):
        """Takes the settings, texts by name. Called once, before anything else. An exception refuses the deployment."""

    def record(self, record, out):
        """Takes one record and emits any number of records. One that is not emitted is filtered."""
        raise NotImplementedError

    def batch(self, batch):
        """Takes a whole batch. Override it in place of `record` to work on columns."""
        return self._each_record(batch, self.record)

    def _each_record(self, batch, take):
        out = Out(batch)
        rejections = []
        for record in records(batch):
            try:
                take(record, out)
            except (Retry, Fatal):
                raise
            except Exception as error:
                rejections.append((record.index, reason(error)))
        if rejections:
            raise Rejected(rejections)
        return out.finish()


def reason(error):
    """What is said of an error to whoever looks at the pipeline."""
    if isinstance(error, (Reject, Retry, Fatal)):
        return str(error)
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" ({at.tb_frame.f_code.co_filename}, line {at.tb_lineno})"
    return f"{type(error).__name__}: {error}{where}"
