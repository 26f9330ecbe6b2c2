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
KAFKA_VERSION = "4.1.0"  # the broker version that the suite is told to expect, unless the option `version=` says another
TIMEOUT = 300  # seconds for one number
JOBS = 16  # nearly all wait for time-outs: all of them together take a fifth of two cores
LONGEST = ["0089", "0091", "0076", "0045", "0094", "0102", "0026", "0113"]  # most of a minute or more each
# Brokers for tests with the option `broker=NAME`: settings that differ from those of all other tests.
BROKERS = {
    "default": {},
    "noautocreate": {"auto.create.topics.enable": "false"},
    "delay": {"group.initial.rebalance.delay.ms": 3000},  # for these two members must be in the first generation
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

    def list_option(self, name):
        value = self.option(name)
        return value.split(",") if value else []


def allow_list():
    lines = [line for line in open(HERE / "allow.tsv", encoding="utf-8") if line.strip() and not line.startswith("#")]
    return {listed.name: listed for listed in map(Listed, lines)}


def broker_tests():
    """The tests of the suite that need a broker, from its own table: local ones prove nothing about ours."""
    table = re.search(r"struct test tests\[\] = \{(.*?)\n\};", (SUITE / "tests/test.c").read_text(), re.S)[1]
    entries = re.findall(r"_TEST\((\w+),(.*?)(?=_TEST\(|\Z)", table, re.S)
    return [name for name, rest in entries if "TEST_F_LOCAL" not in rest and "TEST_F_MANUAL" not in rest]


class Unit:
    """One process of the suite: all listed tests with one number and the same options, or one sub-test of them."""

    def __init__(self, tests, subtest, conf, address):
        self.tests, self.subtest, self.conf, self.address = tests, subtest, conf, address
        self.first = tests[0]

    def run(self):
        """Returns the state of each test, the seconds it took, and the output."""
        start = time.monotonic()
        text, found = self.execute()
        states = {}
        for t in self.tests:
            states[t.name] = "timed out" if found is None else found.get(t.name, "not run").lower()
            if states[t.name] == "passed":
                states[t.name] = self.left_out(text) or "passed"
        return states, time.monotonic() - start, text

    def left_out(self, text):
        """What a pass does not tell: a sub-test that is not there, or that skipped itself and is not listed as one that does."""
        if self.subtest and not re.search(rf"\[ .*{re.escape(self.subtest)}", text):
            return f"has no sub-test {self.subtest}"
        skipped = set(re.findall(r"\[ (\w+):\d+.*?: SKIP: ", text)) - set(self.first.list_option("skips"))
        return f"skips its sub-test {' '.join(sorted(skipped))}" if skipped else None

    def execute(self):
        options = self.first.options
        env = {**os.environ, "TESTS": self.first.number, "RDKAFKA_TEST_CONF": self.conf,
               "TEST_CPU_CALIBRATION": "4", "LD_LIBRARY_PATH": f"{SUITE}/src:{SUITE}/src-cpp",
               "KAFKA_PATH": str(HERE / "kafka-tools"), "KAFKA_JARS": str(CACHE / "clients/java/libs"),
               "BROKERS": self.address,
               "TEST_KAFKA_VERSION": self.first.option("version", KAFKA_VERSION)}
        if self.subtest:
            env["SUBTESTS"] = self.subtest
        if "broker=noautocreate" in options:
            env["TEST_SCENARIO"] = "noautocreate"
        # -L: none that needs no broker; -E: no socket emulation. Never -Q: it leaves most sub-tests out without a word.
        flags = ["-p1", "-L"] + ([] if "sockem" in options else ["-E"])
        with tempfile.TemporaryFile("w+", errors="replace") as out:
            p = subprocess.Popen(["./test-runner", *flags], cwd=SUITE / "tests", env=env, stdout=out, stderr=out, start_new_session=True)
            try:
                p.wait(float(self.first.option("timeout", TIMEOUT)))
                timed_out = False
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
                timed_out = True
            out.seek(0)
            text = re.sub(r"\x1b\[[0-9;]*m", "", out.read())
        return text, None if timed_out else dict(re.findall(r"^\| (\d{4}_\w+) +\| +(\w+) \|", text, re.M))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["normal", "long", "all"])
    parser.add_argument("numbers", nargs="*")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--outputs", type=pathlib.Path, metavar="DIR", help="keep what every process of the suite prints in DIR")
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
        groups.setdefault((t.number, *t.options), []).append(t)
    brokers = {name: Broker(binary, **BROKERS[name]) for name in {t.option("broker", "default") for t in wanted}}
    units = []
    for tests in groups.values():
        name = tests[0].option("broker", "default")
        conf = logs / f"{name}.conf"
        conf.write_text(f"bootstrap.servers={brokers[name].address}\nbroker.address.family=v4\n")
        more = [] if args.mode == "normal" else tests[0].list_option("long-subtests")
        subtests = more + tests[0].list_option("subtests") or [None]
        units += [Unit(tests, subtest, str(conf), brokers[name].address) for subtest in subtests]
    # So that none is left to run alone at the end.
    units.sort(key=lambda unit: LONGEST.index(unit.first.number) if unit.first.number in LONGEST else len(LONGEST))
    failed, again = {}, []

    def report(unit, outcome, last):
        states, seconds, text = outcome
        if args.outputs:
            args.outputs.mkdir(parents=True, exist_ok=True)
            (args.outputs / f"{'-'.join(filter(None, [unit.first.name, unit.subtest]))}.txt".replace(":", "")).write_text(text)
        for name, state in states.items():
            name += f":{unit.subtest}" if unit.subtest else ""
            print(f"{'pass' if state == 'passed' else 'FAIL' if last else 'again'} {name} {state} {seconds:.1f}s", flush=True)
            if state != "passed" and last:
                failed[name] = text
        if not last and set(states.values()) != {"passed"}:
            again.append(unit)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(unit.run): unit for unit in units}
        for future in concurrent.futures.as_completed(running):
            report(running[future], future.result(), last=False)
    # Many tests measure time: what fails beside others gets a second try by itself, and the summary says so.
    for unit in again:
        report(unit, unit.run(), last=True)
    problems = [f"{name}: {problem}" for name, broker in brokers.items() for problem in broker.stop()]
    count = lambda state: sum(t.state == state for t in listed.values())
    bad = {name.split(":")[0] for name in failed}
    print(f"\nlibrdkafka's suite: {len(wanted) - len(bad)} of {len(wanted)} pass ({len(again) - len(failed)} processes at the second try) "
          f"in {(time.monotonic() - start) / 60:.1f} minutes; the list has {count('normal')} normal, {count('long')} long, {count('skip')} skipped")
    for name, text in failed.items():
        log = logs / f"{name}.log".replace(":", "-")
        log.write_text(text)
        print(f"\nFAIL {name}: {log}")
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
