"""python3 -m unittest"""

import unittest

from pelton.testing import Rejected, TestRecord, run
from plugin import Plugin


class PluginTest(unittest.TestCase):
    def test_long_values_are_shouted(self):
        out = run(Plugin, [TestRecord(b"abc"), TestRecord(b"no")], longer_than="2")
        self.assertEqual(out, [TestRecord(b"ABC")])

    def test_a_record_without_a_value_is_rejected(self):
        with self.assertRaises(Rejected) as rejected:
            run(Plugin, [TestRecord(None)], longer_than="0")
        self.assertEqual(rejected.exception.rejections, [(0, "there is no value")])
