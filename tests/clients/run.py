#!/usr/bin/env python3
"""Runs the client programs against one broker and prints a table; any failed scenario fails the run.

By default it starts $PELTON_BIN on a temporary data directory. `--against HOST:PORT` takes a broker that runs already,
with `--logs DIR` for the directory of its partitions. Names of clients select some of them. tests/oracle/kafka as
$PELTON_BIN tries the programs themselves on Apache Kafka.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("PELTON_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pelton") / "clients"
RECORDS = HERE / "records.tsv"
PYTHON = CACHE / "python/bin/python"
CLIENTS = {
    "kcat": ["python3", HERE / "kcat.py"],
    "confluent-kafka": [PYTHON, HERE / "confluent.py"],
    "aiokafka": [PYTHON, HERE / "aio.py"],
    "kafka-python": [PYTHON, HERE / "kafka_python.py"],
    "kafkajs": ["node", HERE / "kafkajs/main.js"],
    "java": ["java", "-Xmx512m", "-cp", f"{CACHE}/java/classes:{CACHE}/java/libs/*", "Clients"],
    "franz-go": [CACHE / "franz/franz"],
}
# By what each of them places keys unless told otherwise, as runtime/partitioner/PARTITIONERS.md says.
PARTITIONERS = {"kcat": "crc32", "confluent-kafka": "crc32"}
# Those whose program has the scenario `routed`, which is for pelton alone.
ROUTED = ["confluent-kafka", "kafkajs", "java", "franz-go"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
CLIENT_TIMEOUT = 240  # seconds; each takes less than 20 against a healthy broker
READY_TIMEOUT = 90  # seconds


class Broker:
    """pelton on a temporary data directory, its output in a file."""

    SETTINGS = {"num.partitions": 4, "group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 4,
                "log.cleaner.backoff.ms": 50}

    def __init__(self, binary, directory=None, **settings):
        self.dir = pathlib.Path(directory or tempfile.mkdtemp(prefix="pelton-clients-"))
        self.dir.mkdir(exist_ok=True)
        self.logs = self.dir / "data/topics"
        self.log = open(self.dir / "broker.log", "wb")
        command = [binary, "serve", "--data-dir", self.dir / "data", "--listen", "127.0.0.1:0", "--http", "off"]
        for key, value in {**self.SETTINGS, **settings}.items():
            command += ["--set", f"{key}={value}"]
        self.p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        ready = self.ready_line()
        self.address = re.search(r"127\.0\.0\.1:\d+", ready)[0]
        threading.Thread(target=lambda: shutil.copyfileobj(self.p.stdout, self.log), daemon=True).start()

    def ready_line(self):
        timer = threading.Timer(READY_TIMEOUT, self.p.kill)
        timer.start()
        line = self.p.stdout.readline().decode()
        timer.cancel()
        if not line:
            sys.exit(f"error: no broker within {READY_TIMEOUT} s\n{self.tail()}")
        return line

    def tail(self):
        return "\n".join((self.dir / "broker.log").read_text(errors="replace").splitlines()[-30:])

    def remove(self):
        shutil.rmtree(self.dir)

    def stop(self):
        """Ends it gracefully; returns what was wrong with its life."""
        died = self.p.poll()
        self.p.send_signal(signal.SIGTERM)
        try:
            status = self.p.wait(60)
        except subprocess.TimeoutExpired:
            self.p.kill()
            return ["it did not stop within 60 s of SIGTERM"]
        panics = [line for line in (self.dir / "broker.log").read_text(errors="replace").splitlines() if "panicked" in line]
        return panics + ([f"it died with {died}"] if died is not None else [f"exit status {status}"] if status else [])


def stored_codecs(logs, prefix):
    """Compares the codec in the stored batches with the one asked for: a client that finds the broker's version ranges
    odd sends uncompressed without a word. A batch that compression would make larger may stay as it was."""
    wrong, checked = [], 0
    for directory in logs.glob(f"{prefix}-produce-*"):
        what, partition = re.match(r".*-produce-(.+-)?(\d+)$", directory.name).groups()
        want = CODECS.index(what[:-1]) if what else int(partition) // 3
        found = set()
        for segment in directory.glob("*.log"):
            data, at = segment.read_bytes(), 0
            while at + 61 <= len(data):
                length, = struct.unpack_from(">i", data, at + 8)
                attributes, _, _, _, _, _, _, count = struct.unpack_from(">hiqqqhii", data, at + 21)
                if count == 0 or length == 0:
                    break
                found.add(attributes & 7)
                at += 12 + length
        checked += bool(found)
        if found and (want not in found or found - {0, want}):
            wrong.append(f"{directory.name} holds {' '.join(CODECS[c] for c in sorted(found))}, not {CODECS[want]}")
    return checked, wrong


def is_pelton():
    """A stand-in for the binary has not all of its commands and settings."""
    return pathlib.Path(os.environ.get("PELTON_BIN", "")).name == "pelton"


def run(name, command, address, holes, routed):
    """One client's scenarios: how many ended how, the prefix of its topics, the seconds it took."""
    start = time.monotonic()
    env = {**os.environ, "NODE_PATH": str(CACHE / "kafkajs/node_modules"), "PYTHONDONTWRITEBYTECODE": "1"}
    if routed:
        env["PELTON_ROUTED"] = "1"
    p = subprocess.Popen([*map(str, command), address, str(RECORDS), holes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         errors="replace", env=env, start_new_session=True)
    timer = threading.Timer(CLIENT_TIMEOUT, lambda: os.killpg(p.pid, signal.SIGKILL))
    timer.start()
    output = p.stdout.read()
    status = p.wait()
    timed_out = not timer.is_alive()
    timer.cancel()
    lines = output.splitlines()
    count = {state: sum(line.startswith(state + " ") for line in lines) for state in ("ok", "FAIL", "skip")}
    bad = [line for line in lines if line.startswith("FAIL ")]
    head = next((line for line in lines if line.startswith("# ")), "")
    prefix = re.search(r"names start with (\S+?)-?$", head)
    if timed_out:
        bad.append(f"FAIL timeout it did not end within {CLIENT_TIMEOUT} s")
    elif not prefix or (status != 0) != bool(count["FAIL"]) or count["ok"] == 0:
        bad += [f"FAIL program it ended with {status}", *lines[-15:]]
    for line in [head, *(line for line in lines if line.startswith("skip ")), *bad]:
        print("   ", line)
    count["FAIL"] = sum(line.startswith("FAIL ") for line in bad)
    return count, prefix and prefix[1], time.monotonic() - start


def check_placement(name, count, address, prefix):
    """Counts one more scenario of a client: `pelton topic partitioning` finds out by what it has placed its keys."""
    want = {"verdict": "explained", "sure": True, "explained_by": [PARTITIONERS.get(name, "murmur2")], "keys": 300, "keyless": 30,
            "records": 330, "scattered_keys": 0, "unexplained_keys": 0, "partitioner": PARTITIONERS.get(name, "murmur2")}
    command = [os.environ["PELTON_BIN"], "topic", "partitioning", f"{prefix}-placed", "--json", "--bootstrap-server", address]
    p = subprocess.run(command, capture_output=True, text=True, check=False)
    got = json.loads(p.stdout) if p.returncode == 0 else {}
    wrong = {key: got.get(key) for key in want if got.get(key) != want[key]}
    if wrong:
        print(f"FAIL {name} placed-keys {wrong} {p.stderr.strip()}")
    count["FAIL" if wrong else "ok"] += 1


def check_routed(name, count, address, prefix):
    """Counts one more scenario of a client: a topic has placed what it wrote, in order, without what it aborted."""
    pelton, topic = os.environ["PELTON_BIN"], f"{prefix}-routed"
    command = [pelton, "consume", topic, "--from-beginning", "--exit", "--format", "key-value", "--bootstrap-server", address]
    want = {f"key-{i}": ["0", "2", "3", "5", "last"] for i in range(50)}
    got, deadline = None, time.monotonic() + 30
    while got != want and time.monotonic() < deadline:
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        got = {}
        for line in lines:
            key, _, value = line.partition("\t")
            got.setdefault(key, []).append(value)
    command = [pelton, "topic", "partitioning", topic, "--json", "--bootstrap-server", address]
    p = subprocess.run(command, capture_output=True, text=True, check=False)
    placed = json.loads(p.stdout) if p.returncode == 0 else {}
    wrong = got != want or placed.get("explained_by") != ["fnv1a"] or placed.get("scattered_keys") != 0
    if wrong:
        print(f"FAIL {name} routed-records {str(got)[:300]} {placed} {p.stderr.strip()}")
    count["FAIL" if wrong else "ok"] += 1


def check_codecs(name, count, logs, prefix):
    """Counts one more scenario of a client: its batches are stored as it sent them."""
    checked, wrong = stored_codecs(logs, prefix)
    if checked < 15:
        wrong.append(f"only {checked} partitions with batches below {logs}")
    for line in wrong[:5]:
        print(f"FAIL {name} stored-codec {line}")
    count["FAIL" if wrong else "ok"] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=" ".join(CLIENTS))
    parser.add_argument("--against", metavar="HOST:PORT")
    parser.add_argument("--logs", type=pathlib.Path, metavar="DIR")
    args = parser.parse_args()
    if unknown := set(args.clients) - set(CLIENTS):
        parser.error(f"unknown client {' '.join(unknown)}: one of {' '.join(CLIENTS)}")
    broker = None if args.against else Broker(os.environ.get("PELTON_BIN") or sys.exit("error: set PELTON_BIN or use --against"))
    address, logs = (broker.address, broker.logs) if broker else (args.against, args.logs)
    # A topic that has been compacted, for all of them.
    holes = tempfile.NamedTemporaryFile(prefix="pelton-holes-")
    subprocess.run([PYTHON, HERE / "holes.py", address, holes.name], check=True)
    results = {}
    for name in args.clients or CLIENTS:
        print(f"== {name}", flush=True)
        results[name] = count, prefix, _ = run(name, CLIENTS[name], address, holes.name, broker and is_pelton())
        if broker and prefix and is_pelton():
            check_placement(name, count, address, prefix)
            if name in ROUTED:
                check_routed(name, count, address, prefix)
        if broker and broker.p.poll() is not None:
            break
    # Segments of a broker that runs may be partly in its memory; one that has stopped has written all of them.
    problems = broker.stop() if broker else []
    for name, (count, prefix, _) in results.items():
        if logs and prefix:
            check_codecs(name, count, logs, prefix)
    print(f"\n{'client':<16}{'ok':>6}{'FAIL':>6}{'skip':>6}{'minutes':>9}")
    for name, (count, _, seconds) in results.items():
        print(f"{name:<16}{count['ok']:>6}{count['FAIL']:>6}{count['skip']:>6}{seconds / 60:>9.2f}")
    total = {state: sum(count[state] for count, _, _ in results.values()) for state in ("ok", "FAIL", "skip")}
    print(f"{'all':<16}{total['ok']:>6}{total['FAIL']:>6}{total['skip']:>6}{sum(s for _, _, s in results.values()) / 60:>9.2f}")
    for problem in problems:
        print("FAIL broker:", problem)
    if problems or total["FAIL"]:
        if broker:
            print(f"the broker's output is in {broker.dir}/broker.log, its end:\n{broker.tail()}")
        sys.exit(1)
    if broker:
        broker.remove()


if __name__ == "__main__":
    main()
