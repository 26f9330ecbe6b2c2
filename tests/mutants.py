#!/usr/bin/env python3
"""Runs the tests against seeded bugs: every one must be found by the test that tests/mutants.tsv names.

    tests/mutants.py [--long] [MUTANT...]

Builds the harness once, with the feature `mutants`, runs each named test without a mutant (it must pass) and with it (it must
fail, and must have come by the mutant), and prints by what each was caught. With --long, or LONG=1, every mutant meets every
named test, and the matrix is printed too. A mutant that survives fails the run. With PELTON_BIN, the product must
have nothing of all this in it.
"""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As the suite `rust` has them: another selection of packages builds wasmtime once more.
PACKAGES = ["wire", "commitlog", "partitioner", "partitions", "coordinators", "streams", "pipelines", "tables", "state", "wasm", "outbound", "broker", "sdk"]
TARGETS = ["--lib"] + [arg for name in ["it", "crash", "model", "sim", "kills", "tables"] for arg in ("--test", name)]
VARIABLE = "PELTON_MUTANT"
# Tests at a time: most of them wait more than they compute.
AT_ONCE = 2
# Seconds for one test. A test that hangs has not caught anything: it must say what is wrong.
TIME_LIMIT = 120
# What libtest exits with when a test fails; anything else is a test that could not run.
FAILED = 101
# Where a test, or what it runs, found that something is wrong.
PANIC = re.compile(r"panicked at (\S+:\d+):\d+:")


def die(text):
    sys.exit(f"error: {text}")


def read_table():
    rows = []
    for line in (ROOT / "tests/mutants.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, broken, catcher = line.split("\t")
            target, test = catcher.split(" ")
            rows.append((name, broken, (target, test)))
    return rows


def build():
    """The test binaries of the harness by `package/target`, with the directory that each runs in."""
    packages = [arg for name in PACKAGES for arg in ("-p", f"pelton-{name}")]
    command = ["cargo", "test", "--no-run", "--locked", *packages, *TARGETS]
    command += ["--features", "pelton-broker/mutants", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        die("the harness does not build")
    binaries = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            directory = Path(message["manifest_path"]).parent
            target = "lib" if "lib" in message["target"]["kind"] else message["target"]["name"]
            binaries[f"{directory.name}/{target}"] = (message["executable"], directory)
    return binaries


class Run:
    """One test, with a mutant or none."""

    def __init__(self, binaries, catcher, mutant=None):
        target, test = catcher
        executable, directory = binaries[target]
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        environment["RUST_BACKTRACE"] = "0"
        if mutant:
            environment[VARIABLE] = mutant
        command = [executable, "--exact", test]
        start = time.monotonic()
        try:
            done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True,
                                  errors="replace", timeout=TIME_LIMIT, check=False)
            self.status, self.output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            self.status, self.output = "time", ""
        self.seconds = time.monotonic() - start
        ran = f"test {test} ... " in self.output or f"\n{test}\n" in self.output
        self.passed = self.status == 0 and "1 passed" in self.output
        self.failed = self.status == FAILED and ran and "1 failed" in self.output
        self.met = mutant is not None and f"mutant {mutant} met" in self.output
        self.caught = self.failed and self.met
        found = PANIC.search(self.output)
        self.where = found.group(1) if found else "no panic"

    def verdict(self):
        if self.caught:
            return "caught"
        if self.passed:
            return "survives" if self.met else "not met"
        return f"unclear ({self.status}{'' if self.met else ', not met'})"

    def tail(self):
        return "\n".join("    " + line for line in self.output.splitlines()[-25:])


def in_parallel(jobs):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda job: job(), jobs))


def check_product(names):
    """The product has nothing of this in it; the harness has, so that the search is known to find it."""
    product = os.environ.get("PELTON_BIN")
    if not product:
        print("PELTON_BIN is not set: the product was not looked into")
        return True
    found = traces(product, names)
    print(f"{product}: {', '.join(found) or 'nothing of a mutant in it'}")
    return not found


def traces(binary, names):
    content = Path(binary).read_bytes()
    return [text for text in [VARIABLE, *names] if text.encode() in content]


def check_rig(binaries, rows):
    """Tests pass without a mutant, a name that nothing has is told, and the search for traces finds them."""
    names = [name for name, _, _ in read_table()]
    executable, _ = binaries["broker/lib"]
    if len(traces(executable, names)) != len(names) + 1:
        die(f"the harness {executable} has not all of the mutants in it")
    unknown = Run(binaries, rows[0][2], "no-such-mutant")
    if unknown.passed or unknown.failed or "there is no mutant" not in unknown.output:
        die(f"a name that no mutant has is not refused:\n{unknown.tail()}")
    catchers = sorted({catcher for _, _, catcher in rows})
    runs = in_parallel([lambda c=c: Run(binaries, c) for c in catchers])
    bad = [(catcher, run) for catcher, run in zip(catchers, runs) if not run.passed]
    for catcher, run in bad:
        print(f"{' '.join(catcher)} does not pass without a mutant ({run.status}):\n{run.tail()}")
    print(f"{len(catchers) - len(bad)} of {len(catchers)} tests pass without a mutant")
    return not bad


def print_matrix(rows, catchers, results):
    signs = {"caught": "X", "survives": "o", "not met": "."}
    print("\nX caught, o met and not seen, . not met, ? neither passed nor failed\n")
    for index, catcher in enumerate(catchers):
        print(f"{index + 1:3} {' '.join(catcher)}")
    print("\n" + " " * 28 + " ".join(f"{index + 1:2}" for index in range(len(catchers))))
    for name, _, _ in rows:
        line = (signs.get(results[name, catcher].verdict(), "?") for catcher in catchers)
        print(f"{name:28}" + " ".join(f"{sign:>2}" for sign in line))


def main():
    arguments = sys.argv[1:]
    long = os.environ.get("LONG") == "1" or "--long" in arguments
    wanted = [argument for argument in arguments if argument != "--long"]
    rows = read_table()
    unknown = set(wanted) - {name for name, _, _ in rows}
    if unknown:
        die(f"there is no mutant {', '.join(sorted(unknown))}")
    sound = check_product([name for name, _, _ in rows])
    rows = [row for row in rows if not wanted or row[0] in wanted]
    start = time.monotonic()
    binaries = build()
    print(f"the harness was built in {time.monotonic() - start:.0f} s")
    sound &= check_rig(binaries, rows)
    catchers = sorted({catcher for _, _, catcher in rows})
    pairs = [(name, own) for name, _, own in rows]
    if long:
        pairs = [(name, catcher) for name, _, _ in rows for catcher in catchers]
    runs = in_parallel([lambda p=p: Run(binaries, p[1], p[0]) for p in pairs])
    results = dict(zip(pairs, runs))
    survivors = []
    print(f"\n{'mutant':28} {'':8} by")
    for name, _, own in rows:
        run = results[name, own]
        print(f"{name:28} {run.verdict():8} {' '.join(own)}, at {run.where}, {run.seconds:.1f} s")
        if not run.caught:
            survivors.append(name)
            print(run.tail())
    if long:
        print_matrix(rows, catchers, results)
    print(f"\n{len(rows) - len(survivors)} of {len(rows)} mutants were caught, in {time.monotonic() - start:.0f} s")
    if survivors or not sound:
        die(f"these were not: {', '.join(survivors)}" if survivors else "the rig is not sound: see above")


if __name__ == "__main__":
    main()
