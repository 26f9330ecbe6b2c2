#!/usr/bin/env bash
# componentize-py 0.25.1 (PyPI): bytes that a component returns are never freed in it, text and numbers are.
#
# Whoever answers list<u8> grows the memory of the guest by as much with every call, for as long as the instance lives. A string of
# the same size is freed before the next call, and so are a list of other numbers, bytes that come in as an argument and bytes
# that stay inside. Nothing in the component holds what was returned, and Python's own collector cannot reach it: what ends the
# growth is a new instance.
#
# Seen here, under wasmtime 50.0.1: 64 calls of 1 MiB each make the host process larger by 64 to 70 MiB where bytes are returned,
# and by less than 8 in the other cases.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check componentize-py==0.25.1 wasmtime==50.0.1 || exit 2
cat >"$dir/kept.wit" <<'WIT'
package finding:kept;
world kept {
  export take: func(bytes: list<u8>) -> u32;
  export inside: func(size: u32) -> u32;
  export text: func(size: u32) -> string;
  export give: func(size: u32) -> list<u8>;
}
WIT
mkdir "$dir/app"
cat >"$dir/app/kept.py" <<'PY'
import wit_world


class WitWorld(wit_world.WitWorld):
    def take(self, bytes: bytes) -> int:
        return len(bytes)

    def inside(self, size: int) -> int:
        return len(bytes(size))

    def text(self, size: int) -> str:
        return "x" * size

    def give(self, size: int) -> bytes:
        return bytes(size)
PY
"$dir/python/bin/componentize-py" -d "$dir/kept.wit" -w kept componentize -p "$dir/app" kept -o "$dir/kept.wasm" >"$dir/log" 2>&1 ||
  { cat "$dir/log"; exit 2; }
cat >"$dir/call.py" <<'PY'
import sys
from wasmtime import Engine, Store, WasiConfig, component

MIB, CALLS = 1 << 20, 64
engine = Engine()
with open(sys.argv[1], "rb") as file:
    kept = component.Component(engine, file.read())


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / MIB


def growth(name):
    store = Store(engine)
    store.set_wasi(WasiConfig())
    linker = component.Linker(engine)
    linker.add_wasip2()
    call = linker.instantiate(store, kept).get_func(store, name)
    argument = bytes(MIB) if name == "take" else MIB
    # What the first calls need once is not counted.
    for _ in range(4):
        call(store, argument)
    before = resident()
    for _ in range(CALLS):
        call(store, argument)
    return resident() - before


grown = {name: growth(name) for name in ("take", "inside", "text", "give")}
for name, mib in grown.items():
    print(f"{name}: {CALLS} calls of 1 MiB, the process grew by {mib:.0f} MiB")
same = grown.pop("give") > CALLS * 0.9 and max(grown.values()) < CALLS / 8
sys.exit(0 if same else 1)
PY
"$dir/python/bin/python" "$dir/call.py" "$dir/kept.wasm" || { echo "no longer so"; exit 1; }
