#!/usr/bin/env bash
# The plugins' logic natively, then each plugin built and inspected with the built pelton. Called by ./run test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
: "${PELTON_BIN:?run it through ./run test plugins}"
cargo test --locked
for plugin in */plugin.toml; do
  "$PELTON_BIN" plugin inspect "$(dirname "$plugin")"
done
languages/test.sh
