"""Each region has partitions of its own, and a key stays in one of them."""

import pelton


class Region(pelton.Partitioner):
    def configure(self, config):
        self.regions = [name.strip().encode() for name in config["regions"].split(",")]
        if b"" in self.regions:
            raise ValueError("regions: a name is empty; write them as `eu,us,asia`")
        for i, name in enumerate(self.regions):
            if name in self.regions[:i]:
                raise ValueError(f"regions: `{name.decode()}` is there twice")
        self.separator = config["separator"].encode()
        if not self.separator:
            raise ValueError("separator is empty")
        self.header = config["header"]

    def partition(self, record, partitions):
        key = record.key or b""
        name = (record.header(self.header) or b"") if self.header else key.split(self.separator, 1)[0]
        region = self.regions.index(name) if name in self.regions else len(self.regions)
        shares = len(self.regions) + 1
        first, after = region * partitions // shares, (region + 1) * partitions // shares
        # With fewer partitions than shares, several of them have one together.
        return first + pelton.partition_of_key(key, max(after - first, 1))


WitWorld = pelton.export(Region)
