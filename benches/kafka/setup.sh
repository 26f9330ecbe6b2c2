#!/usr/bin/env bash
# Installs Apache Kafka and Kafka Streams into the cache; costs nothing when nothing changed. Prints where they are.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}/bench-kafka
mkdir -p "$to"
now=$(cat "$here"/pom.xml "$here"/*.java | sha256sum)
if [ "$(cat "$to/stamp" 2>/dev/null)" != "$now" ]; then
  echo "installing Apache Kafka to measure beside" >&2
  rm -rf "$to/libs" "$to/classes" "$to/stamp"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$to/libs" >&2
  mkdir "$to/classes"
  javac -cp "$to/libs/*" -d "$to/classes" "$here"/*.java
  echo "$now" >"$to/stamp"
fi
echo "$to"
