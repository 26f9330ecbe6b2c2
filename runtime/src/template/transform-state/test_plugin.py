"""python3 -m unittest"""

import unittest

from pelton.testing import Rejected, StateRun, TestRecord
from plugin import SEEN, Plugin


class PluginTest(unittest.TestCase):
    def test_records_are_counted_by_key(self):
        run = StateRun(Plugin, stores=[SEEN])
        out = run.give([TestRecord(key=key) for key in (b"a", b"b", b"a")])
        self.assertEqual([record.value for record in out], [b"1", b"1", b"2"])
        # Stores stay from batch to batch.
        self.assertEqual(run.give([TestRecord(key=b"a")])[0].value, b"3")

    def test_what_a_failed_batch_has_written_is_dropped(self):
        run = StateRun(Plugin, stores=[SEEN])
        with self.assertRaises(Rejected) as rejected:
            run.give([TestRecord(key=b"a"), TestRecord(b"x")])
        self.assertEqual(rejected.exception.rejections, [(1, "there is no key")])
        self.assertEqual(run.stores.entries[SEEN], {})
