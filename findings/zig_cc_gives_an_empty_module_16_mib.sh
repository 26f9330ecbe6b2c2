#!/usr/bin/env bash
# Zig 0.17.1 (ziglang of PyPI) as a C compiler for WebAssembly: a module without any data begins with 16 MiB of memory.
#
# zig cc tells its linker to make a stack of 16 MiB for wasm32-wasi (1 MiB for wasm32-freestanding); LLD's own default, which
# clang and wasi-sdk leave as it is, is 64 KiB. The stack is linear memory that the module declares as its minimum, so each
# instance begins with 256 pages where others begin with one or two (257 with the C library), and a host that allows an instance
# 16 MiB refuses to make it before a line has run. -Wl,-z,stack-size=N says another size.
#
# Seen here: one function that returns 1. Linked by zig cc: 256 pages (wasm32-wasi), 16 pages (wasm32-freestanding), 1 page with
# -z stack-size=65536. The same object linked by the LLD that is in the same package: 1 page.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check ziglang==0.17.1 || exit 2
export ZIG_GLOBAL_CACHE_DIR="$dir/cache" ZIG_LOCAL_CACHE_DIR="$dir/cache"
zig() { "$dir/python/bin/python" -m ziglang "$@"; }
echo 'int one(void) { return 1; }' >"$dir/one.c"
link=(-O2 -nostdlib -Wl,--no-entry -Wl,--export=one)
zig cc -target wasm32-wasi "${link[@]}" "$dir/one.c" -o "$dir/wasi.wasm"
zig cc -target wasm32-freestanding "${link[@]}" "$dir/one.c" -o "$dir/freestanding.wasm"
zig cc -target wasm32-wasi "${link[@]}" -Wl,-z,stack-size=65536 "$dir/one.c" -o "$dir/asked.wasm"
zig cc -target wasm32-wasi -O2 -c "$dir/one.c" -o "$dir/one.o"
zig wasm-ld --no-entry --export=one "$dir/one.o" -o "$dir/lld.wasm"
cat >"$dir/pages.py" <<'PY'
import sys


def number(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def pages(path):
    """The minimum of the module's one memory, in pages of 64 KiB."""
    with open(path, "rb") as file:
        data = file.read()
    at = 8
    while at < len(data):
        kind = data[at]
        size, at = number(data, at + 1)
        if kind == 5:
            memories, within = number(data, at)
            flags, within = number(data, within)
            assert memories == 1 and flags in (0, 1)
            return number(data, within)[0]
        at += size


seen = {name: pages(f"{sys.argv[1]}/{name}.wasm") for name in ("wasi", "freestanding", "asked", "lld")}
print(seen)
sys.exit(0 if seen == {"wasi": 256, "freestanding": 16, "asked": 1, "lld": 1} else 1)
PY
"$dir/python/bin/python" "$dir/pages.py" "$dir" || { echo "no longer so"; exit 1; }
