#!/usr/bin/env bash
# librdkafka's own test suite against pelton: builds the suite, then runs what allow.tsv lists. See run.py.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
"$here/../clients/setup.sh" python java
exec "$here/run.py" "$@"
