#!/usr/bin/env bash
# componentize-py 0.25.1 (PyPI): a module is there only if it was imported while the component was built.
#
# The interpreter runs once at build time and its memory is stored; the files that it read from are not in the component. An
# import in a function, as many libraries have them to begin faster, finds nothing when the function is called, be it of Python's
# own library or of the application, which the tool was pointed at with -p. The same line at the top of the module, or one that
# names the module anywhere that was executed at build time, makes it work. The build says nothing, and so do tests of the
# module in an ordinary Python.
#
# Seen here, under wasmtime 50.0.1 with all of WASI 0.2: colorsys (Python's) and beside (a file next to the application) cannot
# be imported when called; textwrap, imported at the top, is there for an import within the function, too.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check componentize-py==0.25.1 wasmtime==50.0.1 || exit 2
echo 'package finding:late; world late { export load: func(name: string) -> string; }' >"$dir/late.wit"
mkdir "$dir/app"
echo 'HERE = True' >"$dir/app/beside.py"
cat >"$dir/app/late.py" <<'PY'
import textwrap
import wit_world


class WitWorld(wit_world.WitWorld):
    def load(self, name: str) -> str:
        try:
            if name == "colorsys":
                import colorsys
            elif name == "beside":
                import beside
            elif name == "textwrap":
                import textwrap
            return "is there"
        except ModuleNotFoundError as error:
            return str(error)
PY
"$dir/python/bin/componentize-py" -d "$dir/late.wit" -w late componentize -p "$dir/app" late -o "$dir/late.wasm" >"$dir/log" 2>&1 ||
  { cat "$dir/log"; exit 2; }
cat >"$dir/call.py" <<'PY'
import sys
from wasmtime import Engine, Store, WasiConfig, component

engine = Engine()
store = Store(engine)
store.set_wasi(WasiConfig())
linker = component.Linker(engine)
linker.add_wasip2()
with open(sys.argv[1], "rb") as file:
    load = linker.instantiate(store, component.Component(engine, file.read())).get_func(store, "load")
seen = {name: load(store, name) for name in ("colorsys", "beside", "textwrap")}
for name, said in seen.items():
    print(f"import {name}: {said}")
gone = "No module named '%s'"
same = seen == {"colorsys": gone % "colorsys", "beside": gone % "beside", "textwrap": "is there"}
sys.exit(0 if same else 1)
PY
(cd "$dir/app" && "$dir/python/bin/python" -c 'import colorsys, beside') || exit 2
"$dir/python/bin/python" "$dir/call.py" "$dir/late.wasm" || { echo "no longer so"; exit 1; }
