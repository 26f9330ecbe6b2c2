#!/usr/bin/env bash
# Sessions of planes in January's flights, those that are over and those under way, compared with an independent calculation. Called
# by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/rig.sh
source "$here/../rig.sh"
start_broker
csv flights | awk -F, '$2 == 1' > "$work/flights.csv"
# In one partition flights are read in the order in which they were written, so the same ones are late each time.
for topic in flights flights-clean; do "$pelton" topic create "$topic" --partitions 1; done
# Results are of 2013, by their time too: the default of a week would delete them.
"$pelton" topic create days-of-planes --partitions 1 --config retention.ms=-1
"$pelton" deploy "$here/clean"
"$pelton" deploy "$here/days"
"$pelton" produce flights < "$work/flights.csv"
until_done clean days
"$pelton" pipeline describe days >&2
"$pelton" pipeline describe days --json > "$work/described"
"$pelton" table scan days_under_way --json > "$work/under_way"
"$pelton" consume days-of-planes --from-beginning --exit --format json > "$work/closed"
"$here/expect.py" "$work/closed" "$work/under_way" "$work/described" < "$work/flights.csv"
