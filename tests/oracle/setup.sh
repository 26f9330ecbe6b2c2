#!/usr/bin/env bash
# Installs Apache Kafka's server and tools, and the programs here that use its classes, into the cache, outside the checkout.
# A step whose inputs are unchanged costs nothing. Debian packages are ./run's business (TEST_PACKAGES there).
# Usage: setup.sh [jars|classes|mirror]...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}/oracle
mkdir -p "$to"
exec 9>"$to/setup.lock" && flock 9 # two runs at once must not install into the same place

copy_jars() { # POM DIRECTORY
  rm -rf "$2" && mvn -q -B -f "$1" dependency:copy-dependencies -DoutputDirectory="$2"
}

setup_jars() { copy_jars "$here/pom.xml" "$to/libs"; }
setup_classes() { rm -rf "$to/classes" && mkdir "$to/classes" && javac -cp "$to/libs/*" -d "$to/classes" "$here"/java/*.java; }
setup_mirror() { copy_jars "$here/mirror/pom.xml" "$to/mirror"; }

inputs() {
  case $1 in
    jars) cat "$here/pom.xml" ;;
    classes) cat "$here/pom.xml" "$here"/java/*.java ;;
    mirror) cat "$here/mirror/pom.xml" ;;
  esac
}

[ $# -gt 0 ] || set -- jars classes
for step in "$@"; do
  now=$(inputs "$step" | sha256sum)
  [ "$(cat "$to/$step.stamp" 2>/dev/null)" = "$now" ] && continue
  printf 'installing Apache Kafka to compare with: %s\n' "$step" >&2
  rm -f "$to/$step.stamp"
  if ! ("setup_$step") >"$to/$step.log" 2>&1; then
    printf 'error: cannot install %s: %s\n  the whole output is in %s; the network must reach Maven Central\n' \
      "$step" "$(tail -n 3 "$to/$step.log" | tr '\n' ' ')" "$to/$step.log" >&2
    exit 1
  fi
  echo "$now" >"$to/$step.stamp"
done
