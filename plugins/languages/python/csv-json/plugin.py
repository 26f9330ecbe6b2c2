"""A line with separators becomes a JSON object of texts."""

import pelton

ESCAPES = {byte: f"\\u{byte:04x}" for byte in range(0x20)} | {ord('"'): '\\"', ord("\\"): "\\\\"}


class CsvJson(pelton.Transform):
    def configure(self, config):
        self.columns = config["columns"].split(",")
        self.separator = config["separator"]
        if "" in self.columns:
            raise ValueError("columns: a name is empty")
        if not self.separator:
            raise ValueError("separator is empty")

    def record(self, record, out):
        if record.value is None:
            return out.keep(record)
        fields = record.value.decode().split(self.separator)
        if len(fields) != len(self.columns):
            raise pelton.Reject(f"the line has {len(fields)} fields, not {len(self.columns)}")
        pairs = (f"{quote(name)}:{quote(field)}" for name, field in zip(self.columns, fields))
        out.emit(record, value="{" + ",".join(pairs) + "}")


def quote(text):
    return '"' + text.translate(ESCAPES) + '"'


WitWorld = pelton.export(CsvJson)
