import unittest

from pelton.testing import TestRecord, run
from plugin import Mask


class MaskTest(unittest.TestCase):
    def test_digits_are_masked_and_counted(self):
        given = [
            TestRecord(b"card 1234-5678-9012"),
            TestRecord(b"no 123"),
            TestRecord(None),
            TestRecord(b"1234567", headers=[("internal", b"true")]),
        ]
        out = run(Mask, given, keep="4", header="masked")
        self.assertEqual(out, [TestRecord(b"card ****-****-9012", headers=[("masked", b"8")]), *given[1:3]])
