"""Debian's kcat, whose librdkafka is from 2023, against a broker: it guards what old clients expect."""
import json
import re
import subprocess
import threading
import time

import common
from common import Suite, equal, until

version = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
suite = Suite("kcat", re.search(r"Version (\S+)", version)[1] + " librdkafka " + re.search(r"librdkafka (\S+)", version)[1])
# kcat reads records from lines: no headers or timestamps of their own, and empty is null (-Z).
RECORDS = [(r.key or None, r.value or None) for r in common.RECORDS if not r.headers and not b"\x1f" in (r.key or b"")]
ORDER, TIME, GROUP, HEADERS = map(suite.name, ["order", "time", "group", "headers"])


def kcat(*args, data=None):
    done = subprocess.run(["kcat", "-b", suite.bootstrap, "-q", "-X", "broker.address.family=v4", *args], input=data,
                          capture_output=True, timeout=common.WAIT)
    if done.returncode:
        raise AssertionError(f"kcat {' '.join(args)}: exit {done.returncode}, {done.stderr.decode()[-300:]}")
    return done.stdout


def describe(topic):
    found = json.loads(kcat("-L", "-J", "-t", topic))
    return found["topics"][0]


def create(topic):
    """Asking for its metadata creates a topic, with the partitions that the broker's num.partitions says."""
    until(f"leaders of {topic}", lambda: all(p.get("leader", -1) >= 0 for p in describe(topic)["partitions"]) and describe(topic)["partitions"])


def auto_create():
    for topic in [ORDER, TIME, GROUP, HEADERS] + [suite.name(f"produce-{codec}") for codec in common.CODECS]:
        create(topic)
    found = json.loads(kcat("-L", "-J"))
    equal(len([t for t in found["topics"] if t["topic"].startswith(suite.prefix)]), 9, "topics")
    equal(len(describe(GROUP)["partitions"]), 4, "partitions (the broker under test has num.partitions=4)")
    return f"{len(found['brokers'])} broker"


def read(topic, partition, *more):
    lines = kcat("-C", "-t", topic, "-p", str(partition), "-e", "-J", "-X", "fetch.wait.max.ms=50", *more).splitlines()
    return [json.loads(line) for line in lines]


def produce(codec, acks, partition):
    topic = suite.name(f"produce-{codec}")
    data = b"\x1e".join((k or b"") + b"\x1f" + (v or b"") for k, v in RECORDS)
    kcat("-P", "-t", topic, "-p", str(partition), "-K", "\x1f", "-D", "\x1e", "-Z", "-z", codec, "-X", f"acks={acks}", data=data)
    got = until("all records", lambda: (g := read(topic, partition, "-o", "beginning")) and len(g) >= len(RECORDS) and g)
    text = lambda b: None if b is None else b.decode()
    equal([(m["offset"], m["key"], m["payload"]) for m in got],
          [(i, text(k), text(v)) for i, (k, v) in enumerate(RECORDS)], "records")
    return f"{len(got)} records"


def idempotent():
    data = b"\n".join(b"ordered %d" % i for i in range(common.ORDERED))
    kcat("-P", "-t", ORDER, "-p", "0", "-X", "enable.idempotence=true", "-X", "batch.num.messages=7", data=data)
    lines = kcat("-C", "-t", ORDER, "-p", "0", "-e", "-o", "beginning", "-f", "%o %s\n").decode().splitlines()
    return common.check_ordered([(int(o), v.encode()) for o, v in (line.split(" ", 1) for line in lines)])


def headers():
    wanted = ["h", "1", "h", "2", "empty", "", "null", None, "h", "1"]
    kcat("-P", "-t", HEADERS, "-p", "0", *[a for h in ("h=1", "h=2", "empty=", "null", "h=1") for a in ("-H", h)], data=b"v")
    equal(read(HEADERS, 0, "-o", "beginning")[0]["headers"], wanted, "headers")


def small_fetches():
    got = read(suite.name("produce-none"), 1, "-o", "beginning", "-X", "fetch.message.max.bytes=1000", "-X", "message.max.bytes=1000",
               "-X", "fetch.max.bytes=1000")
    equal([m["offset"] for m in got], list(range(len(RECORDS))), "offsets")


def seek_timestamp():
    kcat("-P", "-t", TIME, "-p", "0", data=b"a\nb\nc")
    time.sleep(0.05)
    between = int(time.time() * 1000)
    time.sleep(0.05)
    kcat("-P", "-t", TIME, "-p", "0", data=b"d\ne")
    query = lambda t: int(re.search(rb"offset (-?\d+)", kcat("-Q", "-t", f"{TIME}:0:{t}"))[1])
    first = read(TIME, 0, "-o", "beginning")[0]["ts"]
    equal([query(t) for t in (0, first, between, between + 3_600_000, -1, -2)], [0, 0, 3, -1, 5, 0], "offsets")
    equal([m["payload"] for m in read(TIME, 0, "-o", f"s@{between}")], ["d", "e"], "records")


def holes():
    topic, end, left = common.holes()
    for start in common.holes_starts(end):
        got = read(topic, 0, "-o", str(start))
        as_bytes = lambda text: None if text is None else text.encode()
        common.check_holes(start, [(m["offset"], as_bytes(m["key"]), as_bytes(m["payload"])) for m in got])
    return f"{len(left)} of {end} offsets"


def placement():
    topic = suite.name("placed")
    create(topic)
    keyed = [key + b"\x1fv" for key in common.placed() if key]
    kcat("-P", "-t", topic, "-K", "\x1f", data=b"\n".join(keyed))
    kcat("-P", "-t", topic, data=b"\n".join(b"v" for key in common.placed() if not key))


class Member:
    """A kcat in a group: what it owns and what it read, from its output."""

    def __init__(self, group):
        self.owned, self.got, self.stopping = set(), [], False
        self.p = subprocess.Popen(
            ["kcat", "-b", suite.bootstrap, "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=100",
             "-X", "heartbeat.interval.ms=200", "-X", "fetch.wait.max.ms=50", "-u", "-G", group, GROUP],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=self.records), threading.Thread(target=self.events)]
        for t in self.threads:
            t.start()

    def records(self):
        for line in self.p.stdout:
            self.got.append(line.rstrip("\n"))

    def events(self):
        for line in self.p.stderr:
            if "rebalanced" in line:
                partitions = {int(p) for p in re.findall(r"\[(\d+)\]", line)}
                self.owned = partitions if "assigned:" in line else set()

    def stop(self):
        self.stopping = True
        self.p.terminate()
        self.p.wait(common.WAIT)
        for t in self.threads:
            t.join()


def group():
    sent, members = [], []

    def produced(phase):
        for p in range(4):
            batch = [f"{phase} {p} {i}" for i in range(10)]
            sent.extend(batch)
            kcat("-P", "-t", GROUP, "-p", str(p), data="\n".join(batch).encode())

    def settled(*counts):
        def ready():
            owned = [m.owned for m in members if not m.stopping]
            return (sorted(map(len, owned)) == sorted(counts) and set().union(*owned) == set(range(4))
                    and sorted(v for m in members for v in m.got) == sorted(sent))
        until(lambda: f"assignment {counts} with {len(sent)} records read once (owned {[m.owned for m in members]}, "
                      f"read {[len(m.got) for m in members]})", ready)

    try:
        produced(1)
        members.append(Member(suite.name("members")))
        settled(4)
        members.append(Member(suite.name("members")))
        settled(2, 2)
        produced(2)
        settled(2, 2)
        members[0].stop()
        settled(4)
        produced(3)
        settled(4)
    finally:
        for m in members:
            m.stop()
    return f"{len(sent)} records once"


suite.run("auto-create-topic", auto_create)
for name, codec, acks, partition in common.produce_cases():
    suite.run(name, produce, codec, acks, partition % 3)
suite.run("idempotent", idempotent)
suite.run("headers", headers)
suite.run("small-fetches", small_fetches)
suite.run("seek-timestamp", seek_timestamp)
suite.run("compacted-holes", holes)
suite.run("group", group)
suite.run("placement", placement)
for name in ["record-timestamps", "commit-metadata", "lag", "groups", "delete-group", "configs", "create-partitions",
             "delete-records", "delete-topic"]:
    suite.skip(name, "kcat has no such command")
suite.done()
