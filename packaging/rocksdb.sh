#!/usr/bin/env bash
# Builds librocksdb.a in DIR from the sources that the crate librocksdb-sys brings: packaging/rocksdb.sh DIR
#
# The crate's own build compiles 343 files, and most of that time goes into reading the same headers again. Here eight
# files make one, as RocksDB's own target `unity.a` does with all of them. The crate takes the library by ROCKSDB_LIB_DIR.
set -euo pipefail
dir=$1
together=8

# The sources of a crate that Cargo.lock names.
crate() {
  local version path
  version=$(sed -n "/^name = \"$1\"\$/{n;s/^version = \"\(.*\)\"\$/\1/p}" Cargo.lock)
  for path in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$1-$version"; do
    [ -d "$path" ] && { printf '%s\n' "$path"; return; }
  done
  echo "error: the sources of $1 $version are not there" >&2
  return 1
}

cargo fetch --locked --quiet >&2
source=$(crate librocksdb-sys) lz4=$(crate lz4-sys) zstd=$(crate zstd-sys)
mkdir -p "$dir"
work=$(mktemp -d "$dir/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# As the crate's build.rs has them on Linux with the features lz4 and zstd.
flags=(-std=c++20 -O2 -fPIC -w -DNDEBUG -DLZ4=1 -DZSTD=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
  -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
  -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT -include cstdint
  -ffunction-sections -fdata-sections
  -I"$source/rocksdb/include" -I"$source/rocksdb" -I"$source/rocksdb/third-party/gtest-1.8.1/fused-src"
  -I"$source" -I"$lz4/liblz4/lib" -I"$zstd/zstd/lib")
if [ "$(uname -m)" = aarch64 ]; then flags+=(-march=armv8-a+crc+aes+crypto); fi

{
  grep -v '^util/build_version.cc$' "$source/rocksdb_lib_sources.txt" | sed "s|^|$source/rocksdb/|"
  echo "$source/build_version.cc"
} | sed 's|.*|#include "&"|' | split --lines=$together --additional-suffix=.cc - "$work/part-"

# A part whose files do not go together is compiled file by file.
compile() {
  local part=$1 object=${1%.cc} line number=0
  shift
  "${CXX:-g++}" "$@" -c "$part" -o "$object.o" 2>"$object.err" && return
  echo "$part is compiled file by file: $(grep -m 1 error "$object.err")" >&2
  while read -r line; do
    number=$((number + 1))
    "${CXX:-g++}" "$@" -x c++ -c - -o "$object-$number.o" <<<"$line"
  done <"$part"
}
export -f compile
printf '%s\0' "$work"/part-*.cc |
  xargs -0 -P "$(nproc)" -I PART bash -c 'set -euo pipefail; compile "$@"' compile PART "${flags[@]}"
ar crs "$work/librocksdb.a" "$work"/*.o
mv "$work/librocksdb.a" "$dir/librocksdb.a"
