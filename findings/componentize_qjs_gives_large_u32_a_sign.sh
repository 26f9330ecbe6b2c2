#!/usr/bin/env bash
# componentize-qjs 0.4.5 (npm): a WIT u32 of 2^31 or more reaches JavaScript negative, and is clamped on the way back.
#
# A function (x: u32) is called with x - 2^32 from 2^31 on, without an error: String(x), sums, comparisons and lengths go wrong.
# JavaScript that returns such a number as u32 gives 2147483647, and so does each one in an array; the same numbers in a
# Uint32Array arrive whole. So hashes, sizes and "null" markers of all ones break, and a test with small numbers shows nothing.
#
# Seen here, under wasmtime 50.0.1: 4000000000 arrives as -294967296; 4000000000 returned is 2147483647, alone and in an array,
# and 4000000000 in a Uint32Array.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error componentize-qjs@0.4.5 >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check wasmtime==50.0.1 || exit 2
cat >"$dir/numbers.wit" <<'WIT'
package finding:numbers;
world numbers {
  export text: func(number: u32) -> string;
  export alone: func() -> u32;
  export in-array: func() -> list<u32>;
  export in-typed-array: func() -> list<u32>;
}
WIT
cat >"$dir/numbers.js" <<'JS'
const large = 4000000000;
export const text = (number) => String(number);
export const alone = () => large;
export const inArray = () => [7, large];
export const inTypedArray = () => new Uint32Array([7, large]);
JS
"$dir/node_modules/.bin/componentize-qjs" --wit "$dir/numbers.wit" --js "$dir/numbers.js" --world numbers --sync --stub-wasi \
  --output "$dir/numbers.wasm" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/call.py" <<'PY'
import sys
from wasmtime import Engine, Store, component

engine = Engine()
store = Store(engine)
with open(sys.argv[1], "rb") as file:
    loaded = component.Component(engine, file.read())
instance = component.Linker(engine).instantiate(store, loaded)


def call(name, *given):
    return instance.get_func(store, name)(store, *given)


seen = [call("text", 2**31 - 1), call("text", 4000000000), call("alone"), call("in-array"), call("in-typed-array")]
print("2147483647 arrives as %s\n4000000000 arrives as %s\nreturned alone: %s\nin an array: %s\nin a Uint32Array: %s" % tuple(seen))
same = seen == ["2147483647", "-294967296", 2147483647, [7, 2147483647], [7, 4000000000]]
sys.exit(0 if same else 1)
PY
"$dir/python/bin/python" "$dir/call.py" "$dir/numbers.wasm" || { echo "no longer so"; exit 1; }
