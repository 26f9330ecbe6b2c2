#!/usr/bin/env python3
"""What the example must give, calculated from the flights themselves: lines `airport=number,flight` on stdin.

    expect.py AIRPORTS ROUTED    compares with records as `pelton consume --format json` prints them
"""
import collections
import csv
import gzip
import json
import sys

PARTITIONS = 3, 6


def main():
    with gzip.open(sys.argv[1], "rt") as file:
        # The hours of two of them are wrong, and the table of the plugin is without those.
        hours = {row["faa"]: int(row["tz"]) for row in csv.DictReader(file) if int(row["tz"]) < 0}
    zones = sorted(set(hours.values()))
    # Airports that the table lacks come behind all zones.
    place = {airport: zones.index(zone) for airport, zone in hours.items()}
    flights = dict(line.rstrip("\n").split("=", 1)[::-1] for line in sys.stdin)
    seen, used, unknown = set(), set(), 0
    for line in open(sys.argv[2]):
        record = json.loads(line)
        flight, airport, partition = record["value"], record["key"], record["partition"]
        assert flights.get(flight) == airport, f"nobody sent {flight} to {airport}"
        assert flight not in seen, f"{flight} is there twice"
        seen.add(flight)
        used.add(partition)
        zone = place.get(airport, len(zones))
        unknown += airport not in place
        of = [zone * count // (len(zones) + 1) for count in PARTITIONS]
        assert partition in of, f"{airport} is in partition {partition}, not in one of {of}"
    assert len(seen) == len(flights), f"{len(seen)} of {len(flights)} flights"
    order(sys.argv[2], flights)
    assert used == set(range(PARTITIONS[1])), f"only the partitions {used} have flights"
    print(f"{len(seen)} flights to {len(set(flights.values()))} airports, {unknown} of them to airports that the table lacks, "
          f"in {len(used)} partitions, each airport's in order")


def order(path, flights):
    """Flights of one producer to one airport are in the order in which it sent them: first in the partition that the airport
    had, then in the one that it has since the topic has grown."""
    # Every other line is of the same producer.
    lines = {flight: n for n, flight in enumerate(flights)}
    parts = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in open(path):
        record = json.loads(line)
        n = lines[record["value"]]
        parts[record["key"], n % 2][record["partition"]].append(n)
    for (airport, producer), by_partition in parts.items():
        assert len(by_partition) <= 2, f"{airport} is in {sorted(by_partition)}"
        sent = [n for part in sorted(by_partition.values()) for n in part]
        assert sent == sorted(sent), f"flights of producer {producer} to {airport} are out of order"


main()
