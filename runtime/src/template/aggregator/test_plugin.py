"""python3 -m unittest"""

import unittest

from pelton.testing import AggregateRun, TestRecord
from plugin import Plugin


class PluginTest(unittest.TestCase):
    def test_the_longest_value_stays(self):
        run = AggregateRun(Plugin)
        run.add("a", TestRecord(b"abc"))
        self.assertEqual(run.add("a", TestRecord(b"ab")), b"abc")
        run.add("b", TestRecord(b"longer"))
        self.assertEqual(run.merge("a", "b"), b"longer")
