#!/usr/bin/env bash
# The main job on real input: a broker on a temporary data directory, a year of real flights in through a Kafka client,
# through a transform compiled to Wasm, and out to another client. Called by `./run demo [--quick]`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
pelton=${PELTON_BIN:?run it through ./run demo}
data=$root/examples/data/nycflights13/flights.csv.gz

quick=0
for option in "$@"; do
  case $option in
    --quick) quick=1 ;;
    *) echo "usage: ./run demo [--quick]" >&2; exit 2 ;;
  esac
done

work=$(mktemp -d "${TMPDIR:-/tmp}/pelton-demo.XXXXXX")
server=
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; }
  rm -rf "$work"
}
trap finish EXIT
step() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }

# The year, or January: 336,776 or 27,004 flights, without the header line.
flights() {
  if [ $quick = 1 ]; then zcat "$data" | awk -F, 'NR > 1 && $2 == 1'; else zcat "$data" | tail -n +2; fi
}
flights > "$work/flights.csv"
total=$(wc -l < "$work/flights.csv")

step "1. A broker on $work/data"
"$pelton" serve --data-dir "$work/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 > "$work/ready" 2> "$work/log" &
server=$!
for _ in $(seq 100); do
  [ -s "$work/ready" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.05
done
kafka=$(sed -n 's/.*kafka \([^ ,]*\).*/\1/p' "$work/ready"); http=$(sed -n 's/.*http \([^ ,]*\).*/\1/p' "$work/ready")
[ -n "$kafka" ] && [ -n "$http" ] || { echo "no ready line:" >&2; cat "$work/ready" "$work/log" >&2; exit 1; }
cat "$work/ready" >&2
export PELTON_BOOTSTRAP_SERVER=$kafka PELTON_HTTP_SERVER=$http PELTON_DATA_DIR=$work/data
for topic in flights flights-clean; do "$pelton" topic create "$topic" --partitions 4; done
"$pelton" topic create flights.dead --partitions 1

step "2. The pipeline: flights -> clean-flight (Wasm) -> flights-clean"
"$pelton" deploy "$here"

step "3. $total real flights in, through a Kafka client (librdkafka, acks=all, idempotent)"
# Into flights, which has no transaction markers; out of the pipeline, whose output topic has some.
count_in() { "$pelton" topic describe flights --json | awk '/"log_end"/ { gsub(/[^0-9]/, ""); sum += $0 } END { print sum + 0 }'; }
count_out() { "$pelton" pipeline describe flight-delays | awk '$1 == "records_out:" { n = $2 } END { print n + 0 }'; }
started=$(date +%s.%N)
"$pelton" produce flights < "$work/flights.csv" & producer=$!
progress() { printf '\r   in %7d   out %7d   of %d ' "$(count_in)" "$(count_out)" "$total" >&2; }
while kill -0 "$producer" 2>/dev/null; do progress; sleep 0.2; done
wait "$producer"

# Done when the pipeline has read all there is: its group has no lag.
lag() { "$pelton" pipeline describe flight-delays --json | awk '/"lag"/ { gsub(/[^0-9-]/, ""); sum += $0; n++ } END { print n ? sum : -1 }'; }
waited=0
while [ "$(lag)" != 0 ]; do
  progress; sleep 0.2; waited=$((waited + 1))
  if [ $waited -gt 600 ]; then echo >&2; "$pelton" pipeline describe flight-delays >&2; exit 1; fi
done
progress
awk -v a="$started" -v b="$(date +%s.%N)" -v n="$total" 'BEGIN { printf "\n   %.1f s, %d flights a second from the first one in to the last one out\n", b - a, n / (b - a) }' >&2

step "4. What came out (flights-clean, keyed by carrier)"
"$pelton" consume flights-clean --from-beginning --exit --format key-value > "$work/out.tsv"
awk -F'\t' '
  { n[$1]++; total++
    if (match($2, /"delay_class":"[a-z-]+"/)) { class = substr($2, RSTART + 15, RLENGTH - 16); c[$1, class]++; all[class]++ } }
  END {
    printf "%-8s %9s %9s %9s %9s %9s\n", "CARRIER", "FLIGHTS", "ON-TIME", "MINOR", "MAJOR", "SEVERE"
    for (k in n) printf "%-8s %9d %9d %9d %9d %9d\n", k, n[k], c[k, "on-time"], c[k, "minor"], c[k, "major"], c[k, "severe"] | "sort -k2,2nr"
    close("sort -k2,2nr")
    printf "%-8s %9d %9d %9d %9d %9d\n", "all", total, all["on-time"], all["minor"], all["major"], all["severe"]
  }' "$work/out.tsv"
out=$(wc -l < "$work/out.tsv")
printf '\n%-28s %9d\n%-28s %9d\n%-28s %9d\n' 'records in' "$total" 'records out' "$out" 'cancelled, dropped' "$((total - out))"
[ "$out" -gt 0 ] && [ "$out" -lt "$total" ]

step "5. A table: what a second pipeline keeps of flights-clean, asked for while it runs"
"$pelton" deploy "$root/examples/04_most_delayed/most_delayed"
counted() { "$pelton" table scan carriers 2>/dev/null | awk -F'"flights":' '{ n += $2 } END { print n + 0 }'; }
behind() { "$pelton" pipeline describe most-delayed --json | awk '/"lag"/ { gsub(/[^0-9-]/, ""); sum += $0 } END { print sum + 0 }'; }
waited=0
until [ "$(counted)" = "$out" ] && [ "$(behind)" = 0 ]; do
  sleep 0.2; waited=$((waited + 1))
  if [ $waited -gt 600 ]; then "$pelton" pipeline describe most-delayed >&2; exit 1; fi
done
echo "pelton table scan carriers" >&2
"$pelton" table scan carriers
echo "pelton table get most_delayed all" >&2
"$pelton" table get most_delayed all

cat >&2 <<TEXT

Look around (the broker is up until this ends):
  export PELTON_BOOTSTRAP_SERVER=$kafka PELTON_HTTP_SERVER=$http PELTON_DATA_DIR=$work/data
  $pelton pipeline describe flight-delays
  $pelton table get carriers UA
  curl http://$http/v1/tables/most_delayed/records/all
  $pelton topic describe flights-clean
  $pelton consume flights-clean --from-beginning --max-messages 3 --format json
  curl http://$http/metrics
TEXT
if [ -t 0 ] && [ -t 2 ]; then read -r -p "Press Enter to stop the broker and remove its data. " _; fi
