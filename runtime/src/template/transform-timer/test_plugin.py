"""python3 -m unittest"""

import unittest

from pelton.testing import TestRecord, TimerRun
from plugin import Plugin


class PluginTest(unittest.TestCase):
    def test_a_key_that_is_quiet_is_told(self):
        run = TimerRun(Plugin, after_ms="1000")
        self.assertEqual(run.give([TestRecord(b"x", b"a")]), [])
        self.assertEqual(run.tick(999), [])
        self.assertEqual(run.tick(1000), [TestRecord(b"quiet", b"a", 1000)])
