import unittest

from pelton.testing import Rejected, TestRecord, run
from plugin import CsvJson


class CsvJsonTest(unittest.TestCase):
    def test_lines_become_objects(self):
        given = [TestRecord('1;Jörg "J"\t'.encode()), TestRecord(b";"), TestRecord(None)]
        out = [record.value for record in run(CsvJson, given, columns="id,name", separator=";")]
        self.assertEqual(out, ['{"id":"1","name":"Jörg \\"J\\"\\u0009"}'.encode(), b'{"id":"","name":""}', None])

    def test_what_does_not_fit_is_rejected(self):
        with self.assertRaises(Rejected) as raised:
            run(CsvJson, [TestRecord(b"1,2"), TestRecord(b"1")], columns="a,b", separator=",")
        self.assertEqual(raised.exception.rejections, [(1, "the line has 1 fields, not 2")])
        with self.assertRaisesRegex(ValueError, "a name is empty"):
            run(CsvJson, [], columns="a,,b", separator=",")
