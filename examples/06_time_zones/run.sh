#!/usr/bin/env bash
# January's flights by the time zone that they go to: a topic places them, whatever its producers say, and grows from 3 to 6
# partitions while they write. Compared with an independent calculation. Called by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/rig.sh
source "$here/../rig.sh"
start_broker
# A line is `airport=number,flight`: the number says where in the list the flight is.
csv flights | awk -F, '$2 == 1 { print $14 "=" NR "," $0 }' > "$work/flights"
awk 'NR % 2' "$work/flights" > "$work/odd"
awk 'NR % 2 == 0' "$work/flights" > "$work/even"
"$pelton" topic create flights --partitions 3 --partitioner "$here/../../plugins/zones" -c retention.ms=-1
# Two producers that place keys by other rules, each at its own pace. The last third of the flights comes after the topic has grown,
# however long that takes.
pace() {
  awk -v grown="$work/grown" '{ print }
    NR % 300 == 0 { fflush(); system("sleep 0.1") }
    NR == 9000 { fflush(); system("until [ -e \"" grown "\" ]; do sleep 0.1; done") }' "$1"
}
pace "$work/odd" | "$pelton" produce flights --key-separator = -X partitioner=consistent_random &
odd=$!
pace "$work/even" | "$pelton" produce flights --key-separator = --partitioner fnv1a &
even=$!
"$here/routed.py" "$pelton" 3000
"$pelton" topic alter flights --partitions 6
touch "$work/grown"
wait "$odd"
wait "$even"
"$here/routed.py" "$pelton" "$(wc -l < "$work/flights")"
"$pelton" topic describe flights >&2
"$pelton" consume flights --from-beginning --exit --format json > "$work/routed"
"$here/expect.py" "$examples/data/nycflights13/airports.csv.gz" "$work/routed" < "$work/flights"
