#!/usr/bin/env bash
# The year's flights joined with planes and airports, compared with an independent calculation. Called by `./run test examples`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/rig.sh
source "$here/../rig.sh"
start_broker
data=$examples/data/nycflights13
"$pelton" topic create planes --partitions 3 --config cleanup.policy=compact
"$pelton" topic create airports --partitions 2 --config cleanup.policy=compact
zcat "$data/planes.csv.gz" | "$here/rows.py" tailnum | "$pelton" produce planes --key-separator =
zcat "$data/airports.csv.gz" | "$here/rows.py" faa | "$pelton" produce airports --key-separator =
"$pelton" table create airports --topic airports --scope global --value json
for topic in flights flights-clean flights-joined; do "$pelton" topic create "$topic" --partitions 4; done
"$pelton" deploy "$here/clean"
"$pelton" deploy "$here/with_planes"
[ -z "$("$pelton" topic list --all | grep __pelton_with-planes-)" ] || { echo "topics of its own, for global tables" >&2; exit 1; }
csv flights | "$pelton" produce flights
until_done clean with-planes
"$pelton" pipeline describe with-planes >&2
"$pelton" pipeline describe with-planes --json > "$work/described"
"$pelton" consume flights-joined --from-beginning --exit --format key-value > "$work/joined"
"$here/expect.py" "$data" "$work/joined" "$work/described"
