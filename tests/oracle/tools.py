#!/usr/bin/env python3
"""Kafka's command line tools against pelton and against Apache Kafka: the same exit status, and no stack trace that Kafka's own
broker does not cause too. In the end DumpLogSegments reads every file of the partitions of the pelton that was stopped.

$PELTON_BIN is pelton. What differs on purpose stands in DIFFERENT with its reason.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import servers
from ask import Ask, CACHE

TOOLS = "org.apache.kafka.tools."
DIFFERENT = {
    "configs alter broker": "the broker's settings are in its file",
    "configs alter user": "there are no quotas",
    "features downgrade": "the versions of features never change",
}


class Tools:
    def __init__(self):
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE}/classes:{CACHE}/libs/*", "Tools"]
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, tool, *args):
        self.p.stdin.write(json.dumps({"class": TOOLS + tool, "args": [str(arg) for arg in args]}) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"java/Tools.java ended at {tool} {args}")
        answer = json.loads(line)
        return answer["status"], answer["out"]

    def stop(self):
        self.p.stdin.close()
        self.p.wait()


def commands(directory):
    """(name, tool, arguments): what is run, in this order."""
    def file(name, content):
        path = directory / name
        path.write_text(json.dumps(content))
        return path
    moved = file("move.json", {"version": 1, "partitions": [{"topic": "t", "partition": p, "replicas": [1]} for p in range(2)]})
    topics = file("topics.json", {"version": 1, "topics": [{"topic": "t"}]})
    emptied = file("records.json", {"version": 1, "partitions": [{"topic": "t", "partition": 0, "offset": 0}]})
    yield "topics create", "TopicCommand", ["--create", "--topic", "t", "--partitions", 2, "--config", "compression.gzip.level=3"]
    yield "topics create again", "TopicCommand", ["--create", "--topic", "t"]
    yield "topics list", "TopicCommand", ["--list"]
    yield "topics describe", "TopicCommand", ["--describe", "--topic", "t"]
    yield "topics unavailable", "TopicCommand", ["--describe", "--unavailable-partitions"]
    yield "topics under min isr", "TopicCommand", ["--describe", "--under-min-isr-partitions"]
    yield "topics alter", "TopicCommand", ["--alter", "--topic", "t", "--partitions", 3]
    yield "acls list", "AclCommand", ["--list"]
    yield "acls add", "AclCommand", ["--add", "--allow-principal", "User:a", "--operation", "Read", "--topic", "t"]
    yield "acls remove", "AclCommand", ["--remove", "--force", "--topic", "t"]
    yield "reassign list", "reassign.ReassignPartitionsCommand", ["--list"]
    yield "reassign generate", "reassign.ReassignPartitionsCommand", ["--generate", "--topics-to-move-json-file", topics,
                                                                     "--broker-list", 1]
    yield "reassign execute", "reassign.ReassignPartitionsCommand", ["--execute", "--reassignment-json-file", moved]
    yield "reassign verify", "reassign.ReassignPartitionsCommand", ["--verify", "--reassignment-json-file", moved]
    yield "reassign cancel", "reassign.ReassignPartitionsCommand", ["--cancel", "--reassignment-json-file", moved]
    for kind in ("preferred", "unclean"):
        yield f"election {kind} all", "LeaderElectionCommand", ["--election-type", kind, "--all-topic-partitions"]
        yield f"election {kind} one", "LeaderElectionCommand", ["--election-type", kind, "--topic", "t", "--partition", 0]
    yield "quorum status", "MetadataQuorumCommand", ["describe", "--status"]
    yield "quorum replication", "MetadataQuorumCommand", ["describe", "--replication"]
    for kind, name in (("topics", "t"), ("brokers", 1), ("broker-loggers", 1), ("users", "u"), ("clients", "c"), ("ips", "1.2.3.4"),
                       ("client-metrics", "m"), ("groups", "g")):
        yield f"configs {kind} one", "ConfigCommand", ["--describe", "--entity-type", kind, "--entity-name", name]
    for kind in ("topics", "brokers", "users", "clients", "ips", "client-metrics", "groups"):
        yield f"configs {kind} each", "ConfigCommand", ["--describe", "--entity-type", kind]
    for kind in ("brokers", "users", "clients", "ips"):
        yield f"configs {kind} default", "ConfigCommand", ["--describe", "--entity-type", kind, "--entity-default"]
    yield "configs topics all", "ConfigCommand", ["--describe", "--all", "--entity-type", "topics", "--entity-name", "t"]
    yield "configs brokers all", "ConfigCommand", ["--describe", "--all", "--entity-type", "brokers", "--entity-name", 1]
    alter = ["--alter", "--entity-type", "topics", "--entity-name", "t"]
    yield "configs alter", "ConfigCommand", [*alter, "--add-config", "retention.ms=777777777,max.decompressed.message.bytes=100000"]
    yield "configs alter list", "ConfigCommand", [*alter, "--add-config", "cleanup.policy=[compact,delete]"]
    yield "configs delete", "ConfigCommand", [*alter, "--delete-config", "cleanup.policy"]
    yield "configs delete unknown", "ConfigCommand", [*alter, "--delete-config", "no.such.key"]
    yield "configs alter unknown", "ConfigCommand", [*alter, "--add-config", "no.such.key=1"]
    yield "configs alter broker", "ConfigCommand", ["--alter", "--entity-type", "brokers", "--entity-name", 1, "--add-config",
                                                   "log.retention.ms=777777777"]
    yield "configs alter user", "ConfigCommand", ["--alter", "--entity-type", "users", "--entity-default", "--add-config",
                                                 "consumer_byte_rate=1000000"]
    yield "client-metrics list", "ClientMetricsCommand", ["--list"]
    yield "client-metrics describe", "ClientMetricsCommand", ["--describe"]
    yield "client-metrics alter", "ClientMetricsCommand", ["--alter", "--name", "m", "--interval", 1000]
    yield "api versions", "BrokerApiVersionsCommand", []
    yield "cluster id", "ClusterTool", ["cluster-id"]
    yield "cluster endpoints", "ClusterTool", ["list-endpoints"]
    yield "features describe", "FeatureCommand", ["describe"]
    yield "features upgrade", "FeatureCommand", ["upgrade", "--feature", "transaction.version=2"]
    yield "features unknown", "FeatureCommand", ["upgrade", "--feature", "no.such.version=1"]
    yield "features downgrade", "FeatureCommand", ["downgrade", "--feature", "transaction.version=1"]
    yield "log dirs", "LogDirsCommand", ["--describe"]
    yield "log dirs of a topic", "LogDirsCommand", ["--describe", "--topic-list", "t", "--broker-list", 1]
    yield "offsets", "GetOffsetShell", ["--topic", "t"]
    yield "delete records", "DeleteRecordsCommand", ["--offset-json-file", emptied]
    reset = ["--reset-offsets", "--group", "g", "--topic", "t", "--to-latest", "--execute"]
    yield "groups reset", "consumer.group.ConsumerGroupCommand", reset
    yield "groups list", "consumer.group.ConsumerGroupCommand", ["--list", "--state"]
    for more in ([], ["--members"], ["--state"], ["--offsets", "--verbose"]):
        yield f"groups describe {' '.join(more)}", "consumer.group.ConsumerGroupCommand", ["--describe", "--group", "g", *more]
    yield "groups describe all", "consumer.group.ConsumerGroupCommand", ["--describe", "--all-groups"]
    yield "groups delete offsets", "consumer.group.ConsumerGroupCommand", ["--delete-offsets", "--group", "g", "--topic", "t"]
    yield "groups delete", "consumer.group.ConsumerGroupCommand", ["--delete", "--group", "g"]
    yield "groups of all kinds", "GroupsCommand", ["--list"]
    yield "share groups", "consumer.group.ShareGroupCommand", ["--list"]
    yield "streams groups", "streams.StreamsGroupCommand", ["--list"]
    yield "tokens", "DelegationTokenCommand", ["--describe"]
    yield "transactions list", "TransactionsCommand", ["list"]
    yield "transactions describe", "TransactionsCommand", ["describe", "--transactional-id", "nope"]
    yield "transactions producers", "TransactionsCommand", ["describe-producers", "--topic", "t", "--partition", 0]
    yield "transactions hanging", "TransactionsCommand", ["find-hanging", "--broker-id", 1]
    yield "topics delete", "TopicCommand", ["--delete", "--topic", "t"]


# These want the address before the command, or in an option of another name.
SPELLING = {"MetadataQuorumCommand": ("--bootstrap-server", True), "FeatureCommand": ("--bootstrap-server", True),
            "TransactionsCommand": ("--bootstrap-server", True), "ClusterTool": ("--bootstrap-server", False)}


def spelled(tool, args, address):
    option, first = SPELLING.get(tool, ("--bootstrap-server", False))
    where = [option, address]
    return [*where, *args] if first else [*args, *where]


def traced(output):
    return any(line.startswith("\tat ") for line in output.splitlines())


def run(tools, pelton, kafka, directory):
    count, met, bad = 0, set(), []
    for name, tool, args in commands(directory):
        results = {}
        for broker, address in (("pelton", pelton), ("Kafka", kafka)):
            status, output = tools(tool, *spelled(tool, args, address))
            results[broker] = (status, traced(output)), output
        count += 1
        (ours, printed), (theirs, expected) = results["pelton"], results["Kafka"]
        if os.environ.get("VERBOSE"):
            print(f"== {name}\npelton {ours}\n{printed}\nKafka {theirs}\n{expected}")
        if ours == theirs or (ours[0] == theirs[0] and not ours[1]):
            continue
        if name in DIFFERENT and ours[0] != 0:
            met.add(name)
        else:
            bad.append(f"{name}: (status, stack trace) is {ours}, with Kafka {theirs}; it printed {printed.strip()[:300]!r}")
    bad += [f"{name}: no difference any more: take it off the list" for name in sorted(set(DIFFERENT) - met)]
    return count, bad


def write_logs(address):
    """Partitions with and without records, in every codec, and some that were cut at their start."""
    ask = Ask()
    for name, partitions in (("empty", 20), ("packed", 1)):
        asked = {"name": name, "numPartitions": partitions, "replicationFactor": 1, "assignments": [],
                 "configs": [{"name": "index.interval.bytes", "value": "100"}, {"name": "segment.bytes", "value": "20000"}]}
        made = ask(address, "CreateTopics", 7, topics=[asked])["topics"][0]
        assert made["errorCode"] == 0, made
    for _ in range(20):
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            assert ask.produce(address, "packed", codec, [10, 500, 90]) == (0, [])
    ask.stop()


# DumpLogSegments 4.4 says of the first record of any segment but the first that -1 is followed by it.
WRONG = re.compile(r"Mismatch|^  \d+ is followed by|isvalid: false|Exception|failed")


def read_logs(tools, logs):
    """What Kafka's tool for files finds wrong with the partitions below a directory; how many files it read."""
    count, bad = 0, []
    for partition in sorted(path for path in logs.iterdir() if path.is_dir()):
        files = sorted(path for path in partition.iterdir() if path.suffix == ".log")
        for checks in (["--deep-iteration"],):
            status, output = tools("DumpLogSegments", *checks, "--files", ",".join(map(str, files)))
            wrong = [line for line in output.splitlines() if WRONG.search(line)]
            if status or wrong:
                bad.append(f"{partition.name}: DumpLogSegments {checks[0]} ends with {status}: {wrong[:2]}")
        count += len(files)
    return count, bad


def main():
    tools = Tools()
    files = []
    with tempfile.TemporaryDirectory(prefix="pelton-tools-") as directory:
        with servers.pair(lambda broker: files.append(read_logs(tools, broker.logs))) as (pelton, kafka):
            count, bad = run(tools, pelton, kafka, pathlib.Path(directory))
            write_logs(pelton)
    tools.stop()
    (read, wrong), = files
    bad += wrong
    for line in bad:
        print("FAIL", line)
    print(f"{count} commands, {read} files, {len(bad)} failed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
