#!/usr/bin/env python3
"""What the example must give, calculated from the flights themselves: lines of CSV on stdin.

    expect.py OUT LATE    compares with two files: results as `pelton consume --format json` prints them, late flights
"""
import collections
import datetime
import fractions
import json
import sys

HOUR_MS, GRACE_MS = 3_600_000, 16 * 3_600_000


def main():
    windows = collections.defaultdict(list)
    now, results, late, cancelled = -1, [], 0, 0
    for line in sys.stdin:
        field = line.rstrip("\n").split(",")
        if field[8] == "NA":
            cancelled += 1
            continue
        at = datetime.datetime.fromisoformat(field[18].replace("Z", "+00:00"))
        time = int(at.timestamp()) * 1000
        if time > now:
            now = time
            # An hour is over when time has come past its end and the grace: in the order of hours and airports.
            for start, origin in sorted(key for key in windows if key[0] + HOUR_MS + GRACE_MS <= now):
                delays = windows.pop((start, origin))
                results.append((origin, start, len(delays), fractions.Fraction(sum(delays), len(delays)), max(delays)))
        start = time - time % HOUR_MS
        if start + HOUR_MS + GRACE_MS <= now:
            late += 1
        else:
            windows[start, field[12]].append(int(field[5]))

    got = []
    for line in open(sys.argv[1]):
        record = json.loads(line)
        # The airport, and 8 bytes that say when the hour begins.
        key = bytes.fromhex(record["key"]["hex"]) if isinstance(record["key"], dict) else record["key"].encode()
        value = json.loads(record["value"])
        origin, start = key[:-8].decode(), int.from_bytes(key[-8:], "big")
        got.append((origin, start, value["departures"], value["mean_delay"], value["worst"]))
    wanted = [(origin, start, n, float(mean), worst) for origin, start, n, mean, worst in results]
    # The topic may have several partitions.
    got.sort()
    wanted.sort()
    assert got == wanted, next((g, w) for g, w in zip(got + [None], wanted + [None]) if g != w)
    got_late = sum(1 for _ in open(sys.argv[2]))
    assert got_late == late, f"{got_late} flights came late, and should be {late}"
    print(f"{len(got)} hours of airports, {sum(g[2] for g in got)} flights in them, {late} too late, {cancelled} cancelled: as calculated")


main()
