"""A partitioner: says which partition of its topic each record goes to."""

import pelton


class Plugin(pelton.Partitioner):
    """Keys that begin alike, up to the first `-`, lie in one partition: `eu-17` beside `eu-4`."""

    def partition(self, record, partitions):
        region = (record.key or b"").split(b"-")[0]
        return pelton.partition_of_key(region, partitions)


WitWorld = pelton.export(Plugin)
