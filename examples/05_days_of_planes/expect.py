#!/usr/bin/env python3
"""What the example must give, calculated from the flights themselves: lines of CSV on stdin.

    expect.py CLOSED OPEN DESCRIBED    compares with results as `pelton consume --format json` prints them, with what `pelton table scan
                                       days_under_way --json` prints, and with the counts of `pelton pipeline describe days --json`
"""
import datetime
import json
import sys

HOUR_MS = 3_600_000
GAP_MS, GRACE_MS = 10 * HOUR_MS, 16 * HOUR_MS


class Day:
    def __init__(self, time, field):
        self.start = self.end = time
        self.flights = [(time, field)]

    def merge(self, other):
        self.start, self.end = min(self.start, other.start), max(self.end, other.end)
        # Of one time, the one that came first.
        self.flights += other.flights

    def result(self):
        first = min(self.flights, key=lambda flight: flight[0])[1]
        flights = [field for _, field in self.flights]
        miles, airports = sum(int(field[15]) for field in flights), {field[13] for field in flights}
        return (len(flights), miles, first[12], len(airports))


def main():
    days, closed, now, no_tailnum, late = {}, [], -1, 0, 0
    for line in sys.stdin:
        field = line.rstrip("\n").split(",")
        tailnum = field[11]
        if tailnum == "NA":
            no_tailnum += 1
            continue
        time = int(datetime.datetime.fromisoformat(field[18].replace("Z", "+00:00")).timestamp()) * 1000
        if time > now:
            now = time
            for of, open_days in list(days.items()):
                over = [day for day in open_days if day.end + GAP_MS + GRACE_MS + 1 <= now]
                closed += [(of, day.start, day.end, *day.result()) for day in over]
                days[of] = [day for day in open_days if day not in over]
        own = days.setdefault(tailnum, [])
        near = [day for day in own if day.start - GAP_MS <= time <= day.end + GAP_MS]
        if not near and time + GAP_MS + GRACE_MS + 1 <= now:
            late += 1
            continue
        into = Day(time, field)
        # What is there came before.
        for day in sorted(near, key=lambda day: day.start, reverse=True):
            day.merge(into)
            into = day
        days[tailnum] = [day for day in own if day not in near] + [into]
    under_way = [(of, day.start, day.end, *day.result()) for of, own in days.items() for day in own]

    got = []
    for line in open(sys.argv[1]):
        record = json.loads(line)
        # The tail number, and 8 bytes each that say when the day ends and when it begins.
        key, value = record["key"], json.loads(record["value"])
        key = bytes.fromhex(key["hex"]) if isinstance(key, dict) else key.encode()
        end, start = (int.from_bytes(key[place:][:8], "big") for place in (-16, -8))
        got.append((key[:-16].decode(), start, end, *parts(value)))
    compare("days that are over", got, closed)
    got = []
    for line in open(sys.argv[2]):
        row = json.loads(line)
        got.append((row["key"], row["window"]["start"], row["window"]["end"], *parts(row["value"])))
    compare("days under way", got, under_way)
    dropped = json.load(open(sys.argv[3]))["dropped"]["day"]
    counts = (dropped["null_field"], dropped["late"])
    assert counts == (no_tailnum, late), f"{counts} are not {(no_tailnum, late)}"
    flights = sum(day[3] for day in closed + under_way)
    print(
        f"{len(closed)} days of planes and {len(under_way)} under way, {flights} flights in them, {late} too late, {no_tailnum} without "
        f"a tail number: as calculated"
    )


def parts(value):
    return value["flights"], value["miles"], value["first"], value["airports"]


def compare(what, got, wanted):
    got, wanted = sorted(got), sorted(wanted)
    assert got == wanted, f"{what}: {next(pair for pair in zip(got + [None], wanted + [None]) if pair[0] != pair[1])}"


main()
