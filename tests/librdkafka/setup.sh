#!/usr/bin/env bash
# Builds librdkafka's test suite from the sources that the rdkafka-sys crate carries, in the cache. Needs (see ./run):
# gcc, g++, make, and the headers of OpenSSL, zlib, lz4, zstd, SASL and RapidJSON.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}
to=$cache/librdkafka-tests
version=$(sed -n '/^name = "rdkafka-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' "$root/Cargo.lock")
stamp="$version $(cksum <"${BASH_SOURCE[0]}")"
[ "$(cat "$to/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

sources() { find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "rdkafka-sys-$version" 2>/dev/null | head -n 1; }
[ -n "$(sources)" ] || cargo fetch --locked --manifest-path "$root/Cargo.toml"
echo "building librdkafka's test suite ($version), about two minutes" >&2
rm -rf "$to" && mkdir -p "$to" && cp -r "$(sources)"/librdkafka/. "$to" && cd "$to"
# These tests create topics with replication factor 3 though they need one broker only.
sed -i 's/\(part_cnt_[12], \)3,/\11,/' tests/0107-topic_recreate.c
sed -i 's/c_str(), 1, 3)/c_str(), 1, 1)/' tests/0111-delay_create_topics.cpp
sed -i 's/\(create_topic_wait_exists(.*\), 3, 5000)/\1, 1, 5000)/' tests/0098-consumer-txn.cpp tests/0103-transactions.c
# Not *.log: ./configure takes every file named configure.* for a part of itself.
if ! { ./configure && make -j"$(nproc)" libs && make -C tests -j"$(nproc)" build; } >"$to/build.txt" 2>&1; then
  echo "error: librdkafka's test suite does not build, the end of $to/build.txt:" >&2
  tail -n 15 "$to/build.txt" >&2
  exit 1
fi
echo "$stamp" >"$to/stamp"
