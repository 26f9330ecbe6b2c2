"""All digits of a value but the last ones become stars, and what is internal is left out."""

import re

import pelton

DIGIT = re.compile(rb"[0-9]")


class Mask(pelton.Transform):
    def configure(self, config):
        self.keep = int(config["keep"])
        self.header = config["header"]

    def record(self, record, out):
        if record.header("internal") == b"true":
            return
        value = record.value or b""
        masked = len(DIGIT.findall(value)) - self.keep
        if masked <= 0:
            return out.keep(record)
        value = DIGIT.sub(b"*", value, count=masked)
        if self.header:
            out.emit(record, value=value, headers=[*record.headers, (self.header, str(masked))])
        else:
            out.emit(record, value=value)


WitWorld = pelton.export(Mask)
