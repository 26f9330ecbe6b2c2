#!/usr/bin/env bash
# componentize-py 0.25.1 (PyPI) and componentize-qjs 0.4.5 (npm): the same sources give other bytes with each build.
#
# Both start the language's runtime at build time and store its memory in the component. That memory has what a runtime draws by
# chance when it starts: the key of Python's hashes of texts (so hash("x") is fixed with the build and the same in every
# instance; PYTHONHASHSEED in the environment of the build changes nothing), the seed of Math.random() in QuickJS. Even the size
# differs. A digest does not tell whether two people have built the same, and a cache by digest is never hit.
#
# Seen here: two builds each, of the same directory with the same tool on the same machine. The lists of sections are alike; what
# differs are data (the memory), and with Python globals. hash("x") is one number in two instances of a build, and another in
# the second build.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error componentize-qjs@0.4.5 >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check componentize-py==0.25.1 wasmtime==50.0.1 || exit 2
echo 'package finding:hashes; world hashes { export of-x: func() -> s64; }' >"$dir/hashes.wit"
echo 'export const ofX = () => 1n;' >"$dir/hashes.js"
mkdir "$dir/app"
cat >"$dir/app/hashes.py" <<'PY'
import wit_world


class WitWorld(wit_world.WitWorld):
    def of_x(self) -> int:
        return hash("x")
PY
export PYTHONHASHSEED=1
for build in 1 2; do
  "$dir/node_modules/.bin/componentize-qjs" --wit "$dir/hashes.wit" --js "$dir/hashes.js" --world hashes --sync --stub-wasi \
    --output "$dir/js-$build.wasm" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
  "$dir/python/bin/componentize-py" -d "$dir/hashes.wit" -w hashes componentize -p "$dir/app" hashes \
    -o "$dir/python-$build.wasm" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
done
cat >"$dir/compare.py" <<'PY'
import sys
from wasmtime import Engine, Store, WasiConfig, component

NAMES = "custom type import function table memory global export start element code data datacount tag".split()


def number(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def sections(data):
    """Name and content of each section; those of the modules and components inside instead of them."""
    is_component, at = data[4:8] == b"\x0d\0\1\0", 8
    while at < len(data):
        kind = data[at]
        size, at = number(data, at + 1)
        content, at = data[at : at + size], at + size
        if is_component and kind in (1, 4):
            yield from sections(content)
        else:
            yield ("of a component" if is_component else NAMES[kind]), content


def read(name):
    with open(f"{sys.argv[1]}/{name}.wasm", "rb") as file:
        return file.read()


def hashed(engine, linker, loaded):
    store = Store(engine)
    store.set_wasi(WasiConfig())
    return linker.instantiate(store, loaded).get_func(store, "of-x")(store)


same = True
for tool, expect in [("js", {"data"}), ("python", {"data", "global"})]:
    first, second = read(f"{tool}-1"), read(f"{tool}-2")
    one, two = list(sections(first)), list(sections(second))
    alike = [name for name, _ in one] == [name for name, _ in two]
    differ = {name for (name, content), (_, other) in zip(one, two) if content != other}
    print(f"{tool}: {len(first)} and {len(second)} bytes, {len(one)} sections each; different: {sorted(differ)}")
    same &= alike and "data" in differ and differ <= expect
engine = Engine()
linker = component.Linker(engine)
linker.add_wasip2()
hashes = []
for build in "12":
    loaded = component.Component(engine, read(f"python-{build}"))
    hashes.append({hashed(engine, linker, loaded) for _ in range(2)})
print(f'hash("x") in two instances of each build: {hashes}')
sys.exit(0 if same and all(len(hashes) == 1 for hashes in hashes) and hashes[0] != hashes[1] else 1)
PY
"$dir/python/bin/python" "$dir/compare.py" "$dir" || { echo "no longer so"; exit 1; }
