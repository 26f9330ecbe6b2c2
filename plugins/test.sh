#!/usr/bin/env bash
# Tests every plugin natively and builds it for wasm32, with the plugins' own lock file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cargo test --locked
cargo build --locked --release --target wasm32-unknown-unknown
