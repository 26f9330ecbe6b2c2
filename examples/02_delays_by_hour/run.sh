#!/usr/bin/env bash
# Departures and delays by airport and hour, of January's flights, compared with an independent calculation. The broker is
# killed in the middle. Called by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/rig.sh
source "$here/../rig.sh"
csv flights | awk -F, '$2 == 1' > "$work/flights.csv"

# In one partition, so that what is late is late by the order of the list alone.
start_broker
for topic in flights flights-clean; do "$pelton" topic create "$topic" --partitions 1; done
# Results are of 2013, by their time too: the default of a week would delete them.
for topic in delays-by-hour late-flights; do
  "$pelton" topic create "$topic" --partitions 1 --config retention.ms=-1
done
"$pelton" deploy "$here/clean"
"$pelton" deploy "$here/by_hour"
half=$(($(wc -l < "$work/flights.csv") / 2))
head -n "$half" "$work/flights.csv" | "$pelton" produce flights

# Whatever it has come to: what is committed stays, and what is not is done again.
kill -9 "$server"; wait "$server" 2>/dev/null || true
start_broker
tail -n "+$((half + 1))" "$work/flights.csv" | "$pelton" produce flights

until_done clean by-hour
"$pelton" pipeline describe by-hour >&2
for topic in delays-by-hour late-flights; do
  "$pelton" consume "$topic" --from-beginning --exit --format json > "$work/$topic"
done
python3 "$here/expect.py" "$work/delays-by-hour" "$work/late-flights" < "$work/flights.csv"
