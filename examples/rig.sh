# Sourced by the run.sh of an example: a broker on a directory of its own, which is gone when the script ends.
# shellcheck shell=bash
pelton=${PELTON_BIN:?run it through ./run test examples}
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/pelton-example.XXXXXX")
server=
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; }
  rm -rf "$work"
}
trap finish EXIT

start_broker() {
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

# A table of the flights' data as lines of CSV, without its header line.
csv() { zcat "$examples/data/nycflights13/$1.csv.gz" | tail -n +2; }

# Waits until pipelines, each behind those that it reads, have committed all there is.
until_done() { "$examples/until_done.py" "$pelton" "$@" || { cat "$work/log" >&2; exit 1; }; }
