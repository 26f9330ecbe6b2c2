#!/usr/bin/env bash
# cargo 1.95.0: two checkouts of a workspace that share a target directory run each other's code.
#
# Guess: packages are told apart by their path, so CARGO_TARGET_DIR can be shared by several clones or worktrees of one repository.
# Seen: a member of a workspace is known by its path within the workspace. Whether it is fresh is judged by the times of the files of the
# checkout that asks: if they are older than what another checkout has built, that is run, without a word, however different its sources
# are. Only the files' times count, not their content (without the unstable -Zchecksum-freshness).
# What helps: `cargo clean --workspace` before another checkout is built (dependencies from registries stay), or a directory each.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=$work/target
unset RUSTFLAGS CARGO_BUILD_BUILD_DIR CARGO_BUILD_TARGET
CARGO=(cargo +1.95.0)
"${CARGO[@]}" --version | grep -q '^cargo 1\.95\.0 ' || { echo "cargo 1.95.0 is not installed: rustup toolchain install 1.95.0"; exit 2; }

for checkout in first second; do
  mkdir -p "$work/$checkout/member/src"
  printf '[workspace]\nresolver = "3"\nmembers = ["member"]\n' > "$work/$checkout/Cargo.toml"
  printf '[package]\nname = "member"\nversion = "0.1.0"\nedition = "2024"\n' > "$work/$checkout/member/Cargo.toml"
  echo "fn main() { println!(\"$checkout\") }" > "$work/$checkout/member/src/main.rs"
done
# Both were made before anything was built.
find "$work/first" "$work/second" -exec touch -d '2026-01-01T00:00:00Z' {} +

said() { (cd "$work/$1" && "${CARGO[@]}" run -q); }
expect() {
  [ "$2" = "$3" ] || { echo "CHANGED: $1: expected $2, got $3"; exit 1; }
  echo "$1: $3"
}
expect "the first checkout, built first, says" first "$(said first)"
expect "the second checkout, whose source says second, says" first "$(said second)"
(cd "$work/second" && "${CARGO[@]}" clean -q --workspace)
expect "the second one after cargo clean --workspace says" second "$(said second)"
expect "and now the first one says" second "$(said first)"
