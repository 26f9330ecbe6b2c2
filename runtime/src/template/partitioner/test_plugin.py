"""python3 -m unittest"""

import unittest

from pelton.testing import TestRecord, partitions
from plugin import Plugin


class PluginTest(unittest.TestCase):
    def test_a_region_stays_together(self):
        placed = partitions(Plugin, [TestRecord(key=key) for key in (b"eu-1", b"us-1", b"eu-2")], 12)
        self.assertEqual(placed[0], placed[2])
        self.assertNotEqual(placed[0], placed[1])
