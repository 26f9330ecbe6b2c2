#!/usr/bin/env python3
"""Fails if an import circle crosses a folder of a package: a reader of one folder must not need all the others.

A module at the top of a package is a room, with the folder of its name. `use` and paths by `crate::` and `super::`
count, tests do not.
"""

import pathlib
import re
import sys

PACKAGES = sys.argv[1:]
USE = re.compile(r"\b(?:crate|super(?:::super)*)::(?:\{|[A-Za-z_])")
COMMENT = re.compile(r"//[^\n]*")
TESTS = re.compile(r"^#\[cfg\(.*\btest\b.*\)\]\n(?:#\[.*\n)*(?:pub(?:\(\w+\))? )?mod \w+ \{.*?^\}", re.M | re.S)


def names(text, at):
    """What is named first after `crate::`: one name, or each of a list in braces."""
    if text[at] != "{":
        return [re.compile(r"\w+").match(text, at).group()]
    found, depth, start = [], 0, at + 1
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if (text[i] == "," and depth == 1) or depth == 0:
            found += re.findall(r"\w+", text[start:i])[:1]
            start = i + 1
        if depth == 0:
            return found
    return found


def module_of(path, root):
    parts = list(path.relative_to(root).with_suffix("").parts)
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def is_test(module):
    return any(part == "tests" or part.endswith("_tests") for part in module)


def imports(root):
    """From room to room: a file that needs it. Names that lib.rs hands on stand for where they come from."""
    files = {path: TESTS.sub("", COMMENT.sub("", path.read_text())) for path in sorted(root.rglob("*.rs"))}
    rooms = {module_of(path, root)[0] for path in files if module_of(path, root)}
    handed_on = {}
    for room, what in re.findall(r"pub(?:\(\w+\))? use (?:self::|crate::)?(\w+)::([^;]+);", files.get(root / "lib.rs", "")):
        handed_on |= {name: room for name in re.findall(r"\w+", what)}
    edges = {}
    for path, text in files.items():
        module = module_of(path, root)
        if not module or is_test(module):
            continue
        for use in USE.finditer(text):
            prefix, name_at = text[use.start() : use.end()], use.end() - 1
            ups = prefix.count("super")
            if ups and ups < len(module):
                continue
            for name in names(text, name_at):
                room = name if name in rooms else handed_on.get(name)
                if room in rooms and room != module[0]:
                    edges.setdefault(module[0], {}).setdefault(room, path)
    return edges


def circle(edges):
    """Some way from a room back to it, or nothing."""
    done = set()

    def walk(room, way):
        if room in way:
            return [*way[way.index(room) :], room]
        if room in done:
            return None
        for other in sorted(edges.get(room, {})):
            if found := walk(other, [*way, room]):
                return found
        done.add(room)
        return None

    for room in sorted(edges):
        if found := walk(room, []):
            return found
    return None


def main():
    bad = False
    for package in PACKAGES:
        edges = imports(pathlib.Path(package) / "src")
        if found := circle(edges):
            bad = True
            print(f"{package}: an import circle crosses its folders: {' -> '.join(found)}", file=sys.stderr)
            for a, b in zip(found, found[1:]):
                print(f"  {edges[a][b]} imports crate::{b}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main())
