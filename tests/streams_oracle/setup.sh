#!/usr/bin/env bash
# Installs Kafka Streams with its test driver, and the program here that uses it, into the cache, outside the checkout.
# A step whose inputs are unchanged costs nothing. Prints the class path. Debian packages are ./run's business
# (TEST_PACKAGES there).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}/streams-oracle
mkdir -p "$to"
exec 9>"$to/setup.lock" && flock 9 # two runs at once must not install into the same place

setup_libs() {
  rm -rf "$to/libs" && mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$to/libs"
}
setup_classes() {
  rm -rf "$to/classes" && mkdir "$to/classes" && javac -cp "$to/libs/*" -d "$to/classes" "$here"/java/*.java
}

inputs() {
  case $1 in
    libs) cat "$here/pom.xml" ;;
    classes) cat "$here/pom.xml" "$here"/java/*.java ;;
  esac
}

for step in libs classes; do
  now=$(inputs "$step" | sha256sum)
  [ "$(cat "$to/$step.stamp" 2>/dev/null)" = "$now" ] && continue
  printf 'installing Kafka Streams to compare with: %s\n' "$step" >&2
  rm -f "$to/$step.stamp"
  if ! ("setup_$step") >"$to/$step.log" 2>&1; then
    printf 'error: cannot install %s: %s\n  the whole output is in %s; the network must reach Maven Central\n' \
      "$step" "$(tail -n 3 "$to/$step.log" | tr '\n' ' ')" "$to/$step.log" >&2
    exit 1
  fi
  echo "$now" >"$to/$step.stamp"
done
echo "$to/classes:$to/libs/*"
