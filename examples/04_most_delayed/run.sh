#!/usr/bin/env bash
# The most delayed carriers of January's flights, asked for over HTTP while they are counted, and in the end compared with an
# independent calculation. Called by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/rig.sh
source "$here/../rig.sh"
start_broker
csv flights | awk -F, '$2 == 1' > "$work/flights.csv"
for topic in flights flights-clean most-delayed; do "$pelton" topic create "$topic" --partitions 4; done
"$pelton" deploy "$here/clean"
"$pelton" deploy "$here/most_delayed"
ask() { curl --silent --show-error "http://$PELTON_HTTP_SERVER/v1/tables/$1"; }

# A thousand flights, so that there is something to ask for; then the rest, while it is asked for.
head -n 1000 "$work/flights.csv" | "$pelton" produce flights
until ask most_delayed/records/all | grep -q '"most_delayed":\['; do
  kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
tail -n +1001 "$work/flights.csv" | "$pelton" produce flights & producer=$!
answers=0
while kill -0 "$producer" 2>/dev/null; do
  ask most_delayed/records/all | grep -q '"offsets":{"__pelton_most-delayed-top-repartition":' || { ask most_delayed; exit 1; }
  answers=$((answers + 1))
done
wait "$producer"
until_done clean most-delayed
echo "$answers answers while flights came" >&2
ask most_delayed/records/all > "$work/top"
ask 'carriers/records?limit=100' > "$work/carriers"
"$here/expect.py" "$work/top" "$work/carriers" < "$work/flights.csv"
