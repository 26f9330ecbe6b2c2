import unittest

from pelton.testing import TestRecord, partitions
from plugin import Region


def placed(keys, count, **config):
    given = [TestRecord(key=key.encode()) for key in keys]
    return partitions(Region, given, count, **{"separator": "-", "header": "", **config})


class RegionTest(unittest.TestCase):
    def test_regions_share_no_partition_where_there_are_enough(self):
        keys = [f"{region}-{n}" for region in ("eu", "us", "asia") for n in range(100)]
        for count in (3, 7, 100):
            eu, us, others = (set(placed(keys, count, regions="eu, us")[at : at + 100]) for at in (0, 100, 200))
            self.assertTrue(max(eu) < min(us) and max(us) < min(others), f"{count}: {eu} {us} {others}")
        self.assertEqual(set(placed(keys, 1, regions="eu, us")), {0})

    def test_the_region_may_be_in_a_header(self):
        record = TestRecord(key=b"us-1", headers=[("region", b"eu")])
        self.assertEqual(partitions(Region, [record], 3, regions="us,eu", separator="-", header="region"), [1])

    def test_settings_that_make_no_sense_are_refused(self):
        for regions, why in (("eu,,us", "is empty"), ("eu,us,eu", "`eu` is there twice")):
            with self.assertRaisesRegex(ValueError, why):
                placed([], 3, regions=regions)
