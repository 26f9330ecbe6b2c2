#!/usr/bin/env bash
# Real Kafka clients, in current releases and one old, against pelton: installs them, then runs every scenario.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/clients/setup.sh"
exec "$here/clients/run.py" "$@"
