#!/usr/bin/env python3
"""What the example must give, calculated from the data themselves.

    expect.py DATA JOINED DESCRIBED    compares with results as `pelton consume --format key-value` prints them, and with the counts of
                                       `pelton pipeline describe with-planes --json`
"""
import collections
import csv
import gzip
import json
import sys


def read(data, name):
    with gzip.open(f"{data}/{name}.csv.gz", "rt") as file:
        yield from csv.DictReader(file)


def known(value):
    return None if value == "NA" else value


def main():
    data, joined, described = sys.argv[1:]
    planes = {row["tailnum"]: known(row["model"]) for row in read(data, "planes")}
    airports = {row["faa"]: row["name"] for row in read(data, "airports")}
    wanted, no_tailnum, no_plane, no_airport = collections.Counter(), 0, 0, 0
    for flight in read(data, "flights"):
        tailnum, dest = known(flight["tailnum"]), flight["dest"]
        no_tailnum += tailnum is None
        no_plane += tailnum is not None and tailnum not in planes
        no_airport += dest not in airports
        plane, airport = (tailnum in planes, planes.get(tailnum)), airports.get(dest)
        wanted[flight["carrier"], dest, int(flight["flight"]), tailnum, flight["time_hour"], plane, airport] += 1

    got = collections.Counter()
    for line in open(joined):
        # Looked up by another field, a flight keeps its key.
        key, value = line.rstrip("\n").split("\t")
        flight = json.loads(value)
        plane, airport = flight["plane"], flight["airport"]
        plane = (plane is not None, plane and plane["model"])
        names = [flight[name] for name in ("dest", "flight", "tailnum", "time_hour")]
        got[key, *names, plane, airport and airport["name"]] += 1
    assert got == wanted, f"{sum((got - wanted).values())} too many, {sum((wanted - got).values())} too few"

    dropped = json.load(open(described))["dropped"]
    counts = [dropped["plane"]["null_field"], dropped["plane"]["unmatched"], dropped["airport"]["unmatched"]]
    assert counts == [no_tailnum, no_plane, no_airport], f"{counts} are not {[no_tailnum, no_plane, no_airport]}"
    print(
        f"{sum(got.values())} flights, {no_tailnum} without a tail number, {no_plane} of planes that nobody knows, {no_airport} to "
        f"airports that nobody knows: as calculated"
    )


main()
