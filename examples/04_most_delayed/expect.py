#!/usr/bin/env python3
"""What the example must give, calculated from the flights themselves: lines of CSV on stdin.

    expect.py TOP CARRIERS    compares with the answers of /v1/tables/most_delayed/records/all and /v1/tables/carriers/records
"""
import collections
import fractions
import json
import sys


def main():
    delays = collections.defaultdict(list)
    for line in sys.stdin:
        field = line.rstrip("\n").split(",")
        # Those that did not arrive are cancelled, or were diverted.
        if field[8] != "NA":
            delays[field[9]].append(int(field[8]))
    means = {carrier: fractions.Fraction(sum(all), len(all)) for carrier, all in delays.items()}
    top = sorted(means, key=means.get, reverse=True)[:10]

    answer = json.load(open(sys.argv[1]))
    got = [(row["label"], row["value"]) for row in answer["value"]["most_delayed"]]
    wanted = [(carrier, float(means[carrier])) for carrier in top]
    assert got == wanted, f"{got} and not {wanted}"
    assert answer["value"]["carriers"] == len(delays), answer
    rows = json.load(open(sys.argv[2]))["records"]
    got = {row["key"]: (row["value"]["flights"], row["value"]["delay"]) for row in rows}
    wanted = {carrier: (len(all), float(means[carrier])) for carrier, all in delays.items()}
    assert got == wanted, f"{got} and not {wanted}"
    for carrier in top:
        print(f"{carrier} {float(means[carrier]):8.3f} minutes, {len(delays[carrier])} flights")
    print(f"{len(delays)} carriers, {sum(map(len, delays.values()))} flights: as calculated")


main()
