#!/usr/bin/env bash
# The figures of the README, each beside the raw limit of the same minute. Called by `./run bench [SUITE…]`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PELTON_BIN:?run it through ./run bench}"
# The selection that the tests build: with another one, cargo would build wasmtime again.
cargo build --release --locked -p pelton -p pelton-tests -p pelton-benches >&2
exec "$CARGO_TARGET_DIR/release/pelton-benches" --binary "$PELTON_BIN" "$@"
