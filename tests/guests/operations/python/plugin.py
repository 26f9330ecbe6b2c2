"""What the bench of languages measures: hand on, keep half of them, change some bytes of each."""

import re

import pelton
from wit_world.imports.records import Output, Slices

NAME = re.compile(rb'"name":"[^"]*"')
NULL = 0xFFFFFFFF


def upper_name(match):
    return b'"name":' + match[0][7:].upper()


class Operations(pelton.Transform):
    def configure(self, config):
        self.operation = config["operation"]
        self.columns = config.get("columns") == "true"

    def record(self, record, out):
        if self.operation == "identity":
            out.keep(record)
        elif self.operation == "filter":
            value = record.value
            if value is not None and len(value) > 7 and not value[7] & 1:
                out.keep(record)
        else:
            out.emit(record, value=NAME.sub(upper_name, record.value, count=1))

    def batch(self, batch):
        if not self.columns:
            return super().batch(batch)
        data, at, lengths = batch.data, batch.values.offsets, batch.values.lengths
        if self.operation == "filter":
            fields = enumerate(zip(at, lengths))
            source = [i for i, (start, length) in fields if 7 < length < NULL and not data[start + 7] & 1]
        else:
            source = list(range(len(at)))
        if self.operation != "edit":
            return Output(source, b"", None, None, None, None, None)
        # All values at once: what is edited is as long as before, so it lies where it lay, in the answer's own bytes.
        moved = [start + len(data) for start in at]
        return Output(source, NAME.sub(upper_name, data), None, Slices(moved, lengths), None, None, None)


WitWorld = pelton.export(Operations)
