#!/usr/bin/env bash
# Makes dist/pelton-<version>-<target>.tar.gz out of the built binary: called by ./run dist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binary=$1
version=$("$binary" --version | awk '{print $2}')
name=pelton-$version-$(uname -m)-linux
rm -rf "dist/$name" && mkdir -p "dist/$name"
install -m 755 "$binary" "dist/$name/pelton"
strip "dist/$name/pelton"
cp README.md LICENSE CHANGELOG.md "dist/$name/"
cp packaging/pelton.service "dist/$name/"
# Every setting with its meaning, unit, range and default, as a comment.
"$binary" config print > "dist/$name/pelton.toml"
tar -C dist --sort=name --owner=0 --group=0 --numeric-owner -czf "dist/$name.tar.gz" "$name"
(cd dist && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
rm -rf "dist/$name"
ls -l "dist/$name.tar.gz" >&2
printf '%s\n' "dist/$name.tar.gz"
