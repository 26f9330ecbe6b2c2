#!/usr/bin/env python3
"""rows.py KEY < CSV: a line of CSV with a header becomes `key=JSON`, for `pelton produce --key-separator =`."""
import csv
import json
import sys

for row in csv.DictReader(sys.stdin):
    key = row.pop(sys.argv[1])
    print(f"{key}={json.dumps({name: None if value == 'NA' else value for name, value in row.items()})}")
