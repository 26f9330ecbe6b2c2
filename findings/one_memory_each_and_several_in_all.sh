#!/usr/bin/env bash
# componentize-qjs 0.4.5 (npm) under wasmtime 50.0.1: no module of a component has two memories, and the component needs the
# feature "multi-memory".
#
# With --stub-wasi the tool puts a component for WASI beside that of QuickJS. Each has a memory of its own, and what passes a text
# or a list from one to the other is a function that wasmtime makes when it compiles, over both memories. So a host that looks
# at the modules finds nothing that would need the feature, and one that leaves it off, as one that has no use for it would, cannot
# compile the component; neither wasmtime 48.0.0 nor 50.0.1 said so by an error (not repeated here).
#
# Seen here: three memories, in three components within one; each module is compiled alone with the feature switched off, the
# whole with it on.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error componentize-qjs@0.4.5 >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check wasmtime==50.0.1 || exit 2
echo 'package finding:parts; world parts { export loud: func(text: string) -> string; }' >"$dir/parts.wit"
echo 'export const loud = (text) => text.toUpperCase();' >"$dir/parts.js"
"$dir/node_modules/.bin/componentize-qjs" --wit "$dir/parts.wit" --js "$dir/parts.js" --world parts --sync --stub-wasi \
  --output "$dir/parts.wasm" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/parts.py" <<'PY'
import sys
from wasmtime import Config, Engine, Module, component


def number(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def sections(data):
    at = 8
    while at < len(data):
        kind = data[at]
        size, at = number(data, at + 1)
        yield kind, data[at : at + size]
        at += size


def modules(data, way=()):
    """Each module with the way to the component that it is in."""
    if data[4:8] == b"\x01\0\0\0":
        yield way, data
        return
    for place, (kind, content) in enumerate(sections(data)):
        if kind == 1:
            yield from modules(content, way)
        elif kind == 4:
            yield from modules(content, (*way, place))


with open(sys.argv[1], "rb") as file:
    whole = file.read()
config = Config()
config.wasm_multi_memory = False
without = Engine(config)
having, compiled = [], 0
for way, module in modules(whole):
    Module(without, module)
    compiled += 1
    having += [way for kind, content in sections(module) if kind == 5 for _ in range(number(content, 0)[0])]
component.Component(Engine(), whole)
print(f"{compiled} modules are compiled without the feature; memories are declared in {len(having)} of them, in {len(set(having))} components")
sys.exit(0 if len(having) == len(set(having)) == 3 else 1)
PY
"$dir/python/bin/python" "$dir/parts.py" "$dir/parts.wasm" || { echo "no longer so"; exit 1; }
