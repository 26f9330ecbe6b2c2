#!/usr/bin/env bash
# Departures and delays by airport and hour, of January's flights, compared with an independent calculation. The broker is
# killed in the middle. Called by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pelton=${PELTON_BIN:?run it through ./run test examples}
work=$(mktemp -d "${TMPDIR:-/tmp}/pelton-example.XXXXXX")
server=
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; }
  rm -rf "$work"
}
trap finish EXIT
zcat "$here/../data/nycflights13/flights.csv.gz" | awk -F, 'NR > 1 && $2 == 1' > "$work/flights.csv"

start() {
  : > "$work/ready"
  "$pelton" serve --data-dir "$work/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 > "$work/ready" 2>> "$work/log" &
  server=$!
  for _ in $(seq 600); do
    [ -s "$work/ready" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
  done
  PELTON_BOOTSTRAP_SERVER=$(sed -n 's/.*kafka \([^ ,]*\).*/\1/p' "$work/ready")
  PELTON_HTTP_SERVER=$(sed -n 's/.*http \([^ ,]*\).*/\1/p' "$work/ready")
  export PELTON_BOOTSTRAP_SERVER PELTON_HTTP_SERVER PELTON_DATA_DIR=$work/data
}
# Flights go by airport here, and the topics are keyed by carrier: that needs all of them in one partition.
start
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
start
tail -n "+$((half + 1))" "$work/flights.csv" | "$pelton" produce flights

# Done when a pipeline has committed all that its topic has; the second one when the first one is.
number() { awk -v name="\"$1\"" 'index($0, name) { gsub(/[^0-9]/, ""); print; exit }'; }
is_done() {
  [ "$("$pelton" pipeline describe "$1" --json | number committed)" = "$("$pelton" topic describe "$2" --json | number log_end)" ]
}
waited=0
until is_done clean flights && is_done by-hour flights-clean; do
  sleep 0.2; waited=$((waited + 1))
  if [ $waited -gt 600 ]; then "$pelton" pipeline describe by-hour >&2; cat "$work/log" >&2; exit 1; fi
done
"$pelton" pipeline describe by-hour >&2
for topic in delays-by-hour late-flights; do
  "$pelton" consume "$topic" --from-beginning --exit --format json > "$work/$topic"
done
python3 "$here/expect.py" "$work/delays-by-hour" "$work/late-flights" < "$work/flights.csv"
