#!/usr/bin/env python3
"""routed.py PELTON N: waits until the topic flights has at least so many records."""
import subprocess
import sys
import time

PATIENCE_S = 120


def main():
    pelton, wanted = sys.argv[1], int(sys.argv[2])
    end = time.monotonic() + PATIENCE_S
    while True:
        command = [pelton, "consume", "flights", "--from-beginning", "--exit"]
        found = subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")
        if found >= wanted:
            return
        if time.monotonic() > end:
            sys.exit(f"flights has {found} records, not {wanted}")
        time.sleep(0.05)


main()
