#!/usr/bin/env bash
# componentize-qjs 0.4.5 (npm): Math.random() gives every instance of a component the same numbers.
#
# The engine is started when the component is built, and its state is stored in it, with the seed of Math.random(). Nothing seeds
# it again, although the component imports wasi:random and its host has some to give: ten instances that each draw an id, a
# delay before they try again, or a sample, draw the same. Only another build draws others. (In a component of componentize-py
# 0.25.1 random.random() differs from instance to instance.)
#
# Seen here, under wasmtime 50.0.1 with all of WASI 0.2: two instances of one build draw the same three numbers, an instance of
# a second build of the same source draws three others.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error componentize-qjs@0.4.5 >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check wasmtime==50.0.1 || exit 2
echo 'package finding:draw; world draw { export draw: func() -> f64; }' >"$dir/draw.wit"
echo 'export const draw = () => Math.random();' >"$dir/draw.js"
for build in first second; do
  "$dir/node_modules/.bin/componentize-qjs" --wit "$dir/draw.wit" --js "$dir/draw.js" --world draw --sync \
    --output "$dir/$build.wasm" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
done
cat >"$dir/draw.py" <<'PY'
import sys
from wasmtime import Engine, Store, WasiConfig, component

engine = Engine()
linker = component.Linker(engine)
linker.add_wasip2()


def instance(path):
    with open(path, "rb") as file:
        loaded = component.Component(engine, file.read())
    store = Store(engine)
    store.set_wasi(WasiConfig())
    draw = linker.instantiate(store, loaded).get_func(store, "draw")
    return [draw(store) for _ in range(3)]


one, other, rebuilt = instance(sys.argv[1]), instance(sys.argv[1]), instance(sys.argv[2])
print(f"an instance:            {one}\nanother of this build:  {other}\none of a second build:  {rebuilt}")
sys.exit(0 if one == other and len(set(one)) == 3 and one != rebuilt else 1)
PY
"$dir/python/bin/python" "$dir/draw.py" "$dir/first.wasm" "$dir/second.wasm" || { echo "no longer so"; exit 1; }
