#!/usr/bin/env bash
# What CI runs of this example: the demo on January's flights.
exec "$(dirname "${BASH_SOURCE[0]}")/demo.sh" --quick
