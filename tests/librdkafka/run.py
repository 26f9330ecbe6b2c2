#!/usr/bin/env python3
"""Runs librdkafka's own test suite on $PELTON_BIN, as allow.tsv says.

    run.py normal|long [NUMBER…]    the tests of the normal run, or all that are allowed, or those with these numbers
    run.py all [NUMBER…]            also what the list skips, to find out whether it still must

A test that is listed as normal or long must pass, by itself at least; one that skips itself counts as a failure. The
suite selects by number only, so one process runs all tests with the same number.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from run import Broker  # noqa: E402  (brokers under test are started in one way only)

CACHE = pathlib.Path(os.environ.get("PELTON_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pelton")
SUITE = CACHE / "librdkafka-tests"
KAFKA_VERSION = "4.1.0"  # the broker version that the suite is told to expect
TIMEOUT = 300  # seconds for one number
JOBS = 6  # most tests wait for time-outs, so they run side by side
LONGEST = ["0113", "0081", "0076", "0045", "0094", "0026"]  # a minute or more each
# Brokers for tests with the option `broker=NAME`: settings that differ from those of all other tests.
BROKERS = {
    "default": {},
    "noautocreate": {"auto.create.topics.enable": "false"},
    "delay": {"group.initial.rebalance.delay.ms": 3000},  # these count rebalances, and two members must join in one
}


class Listed:
    def __init__(self, line):
        self.name, self.state, options, self.reason = line.rstrip("\n").split("\t")
        self.options = options.split()
        if self.state not in ("normal", "long", "skip") or (self.state == "skip" and not self.reason):
            sys.exit(f"error: allow.tsv: {self.name}: the state is normal, long, or skip with a reason, not {self.state!r}")

    @property
    def number(self):
        return self.name[:4]

    def option(self, name, default=None):
        return next((o[len(name) + 1:] for o in self.options if o.startswith(name + "=")), default)


def allow_list():
    lines = [line for line in open(HERE / "allow.tsv", encoding="utf-8") if line.strip() and not line.startswith("#")]
    return {listed.name: listed for listed in map(Listed, lines)}


def broker_tests():
    """The tests of the suite that need a broker, from its own table: local ones prove nothing about ours."""
    table = re.search(r"struct test tests\[\] = \{(.*?)\n\};", (SUITE / "tests/test.c").read_text(), re.S)[1]
    entries = re.findall(r"_TEST\((\w+),(.*?)(?=_TEST\(|\Z)", table, re.S)
    return [name for name, rest in entries if "TEST_F_LOCAL" not in rest and "TEST_F_MANUAL" not in rest]


def execute(number, options, subtests, conf, address, mode):
    """One process of the suite. Returns its output and the state of every test in it, or None after a time-out."""
    env = {**os.environ, "TESTS": number, "TEST_KAFKA_VERSION": KAFKA_VERSION, "RDKAFKA_TEST_CONF": conf, "TEST_CPU_CALIBRATION": "4",
           "LD_LIBRARY_PATH": f"{SUITE}/src:{SUITE}/src-cpp", "KAFKA_PATH": str(HERE / "kafka-tools"), "BROKERS": address}
    if subtests:
        env["SUBTESTS"] = subtests
    if "broker=noautocreate" in options:
        env["TEST_SCENARIO"] = "noautocreate"
    flags = ["-p1", "-L"] + ([] if "sockem" in options else ["-E"]) + (["-Q"] if "quick" in options and mode == "normal" else [])
    # -L: none that needs no broker; -E: no socket emulation; -Q leaves out most sub-tests without a word, so it is rare
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen(["./test-runner", *flags], cwd=SUITE / "tests", env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            p.wait(float(next((o[8:] for o in options if o.startswith("timeout=")), TIMEOUT)))
            timed_out = False
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            timed_out = True
        out.seek(0)
        text = re.sub(r"\x1b\[[0-9;]*m", "", out.read())
    found = dict(re.findall(r"^\| (\d{4}_\w+) +\| +(\w+) \|", text, re.M))
    return text, None if timed_out else found


def run(number, tests, conf, address, mode):
    """All listed tests of one number, in as many processes as they have options."""
    start, results, output = time.monotonic(), {}, ""
    for options in sorted({tuple(t.options) for t in tests}):
        same = [t for t in tests if tuple(t.options) == options]
        for subtests in (same[0].option("subtests") or "").split(","):
            text, found = execute(number, options, subtests, conf, address, mode)
            output += text
            for t in same:
                state = "timeout" if found is None else found.get(t.name, "not run").lower()
                if subtests and state == "passed" and f"[ {subtests}" not in text:
                    state = f"has no subtest {subtests}"
                if results.get(t.name, "passed") == "passed":
                    results[t.name] = state
    return results, time.monotonic() - start, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["normal", "long", "all"])
    parser.add_argument("numbers", nargs="*")
    parser.add_argument("--jobs", type=int, default=JOBS)
    args = parser.parse_args()
    listed = allow_list()
    if odd := set(broker_tests()) ^ set(listed):
        sys.exit(f"error: allow.tsv and the suite's table of tests differ in: {' '.join(sorted(odd))}")
    states = {"normal": ["normal"], "long": ["normal", "long"], "all": ["normal", "long", "skip"]}[args.mode]
    wanted = [t for t in listed.values() if (t.number in args.numbers if args.numbers else t.state in states)]
    binary = os.environ.get("PELTON_BIN") or sys.exit("error: set PELTON_BIN")
    start, logs = time.monotonic(), pathlib.Path(tempfile.mkdtemp(prefix="librdkafka-tests-"))
    groups = {}
    for t in wanted:
        groups.setdefault((t.number, t.option("broker", "default")), []).append(t)
    # The longest first, so that none is left to run alone at the end.
    groups = dict(sorted(groups.items(), key=lambda item: item[0][0] not in LONGEST))
    brokers = {name: Broker(binary, **BROKERS[name]) for name in {b for _, b in groups}}
    for name, broker in brokers.items():
        (logs / f"{name}.conf").write_text(f"bootstrap.servers={broker.address}\nbroker.address.family=v4\n")
    failed, again = [], []

    def report(results, seconds, text, last):
        for name, state in results.items():
            print(f"{'pass' if state == 'passed' else 'FAIL' if last else 'again'} {name} {state} {seconds:.1f}s", flush=True)
            if state != "passed":
                (logs / f"{name}.log").write_text(text)
                (failed if last else again).append(name)

    one = lambda key: run(key[0], groups[key], str(logs / f"{key[1]}.conf"), brokers[key[1]].address, args.mode)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(one, key) for key in groups]):
            report(*future.result(), last=False)
    # Many tests measure time: what fails beside others gets a second try by itself, and the summary says so.
    for key, tests in groups.items():
        if any(t.name in again for t in tests):
            report(*one(key), last=True)
    problems = [f"{name}: {problem}" for name, broker in brokers.items() for problem in broker.stop()]
    count = lambda state: sum(t.state == state for t in listed.values())
    print(f"\nlibrdkafka's suite: {len(wanted) - len(failed)} of {len(wanted)} pass ({len(again) - len(failed)} at the second try) "
          f"in {(time.monotonic() - start) / 60:.1f} minutes; the list "
          f"has {count('normal')} normal, {count('long')} long, {count('skip')} skipped")
    for name in failed:
        print(f"\nFAIL {name}: {logs}/{name}.log")
        text = (logs / f"{name}.log").read_text()
        for found in re.findall(r"### Test .*\n.*", text)[:2]:
            print("  " + found.replace("\n", "\n  ")[:600])
    for problem in problems:
        print("FAIL broker", problem)
    for statistics in (SUITE / "tests").glob("stats_*.json"):
        statistics.unlink()
    if failed or problems:
        for name, broker in brokers.items():
            print(f"the output of broker {name} is in {broker.dir}/broker.log, its end:\n{broker.tail()}")
        sys.exit(1)
    for directory in [logs, *(broker.dir for broker in brokers.values())]:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
