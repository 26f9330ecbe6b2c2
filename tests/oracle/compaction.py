#!/usr/bin/env python3
"""The same records through pelton's cleaner and Apache Kafka's: the same batches are left, and DumpLogSegments reads pelton's.

The same requests go to both, random by seed: keys, tombstones, codecs, transactions that commit and abort. Neither cleans
while they come; then both clean once, and the files are compared, and so on for some rounds. $PELTON_BIN is pelton.
`compaction.py [SEED...]`
"""
import random
import re
import sys

import servers
from ask import Ask
from tools import WRONG, Tools

TOPIC = "compacted"
ROUNDS = 6
SEGMENT = 2000
CODECS = ["none", "none", "gzip", "snappy", "lz4", "zstd"]
CONFIG = {"cleanup.policy": "compact", "delete.retention.ms": "0", "min.cleanable.dirty.ratio": "1.0", "index.interval.bytes": "200"}
SEGMENT_KEY = {"pelton": "segment.bytes", "Kafka": "internal.segment.bytes"}  # Kafka's public one takes no less than 1 MiB
SETTINGS = {"log.cleaner.backoff.ms": 50, "transaction.state.log.num.partitions": 1, "pelton.checkpoint.interval.ms": 50}
RATIO_TO_CLEAN = "0.0"


class Side:
    """One of the two brokers, and what is known of its transactions."""

    def __init__(self, name, broker, ask):
        self.name, self.address, self.logs, self.ask, self.producers = name, broker.address, broker.logs, ask, {}

    def __call__(self, api, version, **body):
        return self.ask(self.address, api, version, **body)

    def create(self):
        config = {**CONFIG, SEGMENT_KEY[self.name]: str(SEGMENT)}
        asked = {"name": TOPIC, "numPartitions": 1, "replicationFactor": 1, "assignments": [],
                 "configs": [{"name": key, "value": value} for key, value in config.items()]}
        made = self("CreateTopics", 7, topics=[asked])["topics"][0]
        assert made["errorCode"] == 0, made

    def set_ratio(self, ratio):
        change = {"name": "min.cleanable.dirty.ratio", "configOperation": 0, "value": ratio}
        answer = self("IncrementalAlterConfigs", 1, resources=[{"resourceType": 2, "resourceName": TOPIC, "configs": [change]}])
        assert answer["responses"][0]["errorCode"] == 0, answer

    def init(self, name):
        def attempt():
            # Kafka makes the topic of the coordinator when somebody asks for it.
            self("FindCoordinator", 4, keyType=1, coordinatorKeys=[name])
            answer = self("InitProducerId", 1, transactionalId=name, transactionTimeoutMs=60000)
            self.producers[name] = [answer["producerId"], answer["producerEpoch"], 0]
            return answer["errorCode"] == 0
        servers.until(attempt, f"producer id of {self.name}")

    def produce(self, codec, time, records, name):
        transaction = None
        if name:
            producer_id, epoch, sequence = self.producers[name]
            topics = [{"name": TOPIC, "partitions": [0]}]

            def added():
                answer = self("AddPartitionsToTxn", 3, v3AndBelowTransactionalId=name, v3AndBelowProducerId=producer_id,
                              v3AndBelowProducerEpoch=epoch, v3AndBelowTopics=topics)
                results = answer["resultsByTopicV3AndBelow"][0]["resultsByPartition"]
                return results[0]["partitionErrorCode"] == 0
            servers.until(added, "partition in the transaction")
            transaction = (name, producer_id, epoch, sequence)
            self.producers[name][2] += len(records)
        got = self.ask.produce_records(self.address, TOPIC, codec, time, records, transaction)
        assert got == (0, []), (self.name, got)

    def end(self, name, committed):
        producer_id, epoch, _ = self.producers[name]

        def attempt():
            answer = self("EndTxn", 1, transactionalId=name, producerId=producer_id, producerEpoch=epoch, committed=committed)
            return answer["errorCode"] == 0
        servers.until(attempt, "end of a transaction")
        # The marker is there when the next transaction may begin; Kafka answers before.
        self.init_again(name)

    def init_again(self, name):
        """The same epoch goes on; only waits for the last transaction to be over."""
        def over():
            answer = self("DescribeTransactions", 0, transactionalIds=[name])
            return answer["transactionStates"][0]["transactionState"] in ("CompleteCommit", "CompleteAbort")
        servers.until(over, "completion of a transaction")

    def partition(self):
        return self.logs / f"{TOPIC}-0"

    def bases(self):
        return sorted(int(path.stem) for path in self.partition().glob("*.log"))

    def cleaned_to(self):
        try:
            if self.name == "pelton":
                return int((self.partition() / "cleaner-offset-checkpoint").read_text().split()[1])
            lines = (self.logs / "cleaner-offset-checkpoint").read_text().splitlines()
            return next(int(line.split()[2]) for line in lines if line.startswith(f"{TOPIC} 0 "))
        except (FileNotFoundError, StopIteration, IndexError):
            return 0

    def settled(self):
        """Whether all but the active segment can be cleaned at once: with pelton once a checkpoint has written to that one.
        Both files may have one time, which the kernel counts in ticks; the checkpoint before was many ticks earlier."""
        if self.name != "pelton":
            return True
        active = (self.partition() / f"{self.bases()[-1]:020}.log").stat()
        return active.st_size > 0 and (self.logs.parent / "journal/checkpoint").stat().st_mtime_ns >= active.st_mtime_ns

    def clean(self):
        """One clean, of everything below the active segment."""
        end = self.bases()[-1]
        servers.until(self.settled, "checkpoint of pelton")
        self.set_ratio(RATIO_TO_CLEAN)
        servers.until(lambda: self.cleaned_to() == end, f"clean of {self.name} up to {end}, it is at {self.cleaned_to()}")
        self.set_ratio("1.0")


def operations(seed):
    """What both are told, round by round."""
    rng, time, open_transactions = random.Random(seed), 1_700_000_000_000, set()
    for _ in range(ROUNDS):
        now = []
        for _ in range(rng.randrange(40, 70)):
            time += 100
            names = [None, None, "one", "two"]
            name = rng.choice(names)
            if name in open_transactions and rng.random() < 0.5:
                open_transactions.discard(name)
                now.append(("end", name, rng.random() < 0.5))
                continue
            records = [(f"key-{rng.randrange(12)}", rng.choice([None, "v" * rng.randrange(60), f"{rng.random()}"]))
                       for _ in range(rng.randrange(1, 5))]
            if name:
                open_transactions.add(name)
            now.append(("produce", rng.choice(CODECS), time, records, name))
        # What is open holds the cleaner up: Kafka and pelton alike, but it makes for dull rounds.
        now += [("end", name, rng.random() < 0.5) for name in sorted(open_transactions)]
        open_transactions.clear()
        # Keys of their own, until a new segment is begun.
        now += [("produce", "none", time + 10 * n, [(f"fill-{seed}-{rng.random()}", "f" * 700)], None) for n in range(4)]
        yield now


def dump(tools, side):
    """The batches and records of all segments but the active one, as DumpLogSegments prints them, without what may differ."""
    files = [side.partition() / f"{base:020}.log" for base in side.bases()[:-1]]
    status, output = tools("DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", ",".join(map(str, files)))
    # It tells of each hole, which compaction is about.
    wrong = [line for line in output.splitlines() if WRONG.search(line) and "is followed by" not in line]
    assert status == 0 and not wrong, (side.name, status, wrong[:3])
    ids = {producer[0]: name for name, producer in side.producers.items()}
    lines = []
    for line in output.splitlines():
        if line.startswith("Dumping"):
            lines.append(re.sub(r".*/", "", line))
        elif line.startswith("baseOffset:"):
            line = re.sub(r"producerId: (\d+)", lambda found: f"producer {ids[int(found[1])]}", line)
            line = re.sub(r"OptionalLong\[\d+\]", "a horizon", line)
            line = re.sub(r" (position|crc): \d+", "", line)
            # Compressed by another library; what has a horizon has its times relative to that; and markers have the broker's time.
            if "compresscodec: none" not in line or "a horizon" in line:
                line = re.sub(r" size: \d+", "", line)
            if "isControl: true" in line:
                line = re.sub(r" CreateTime: \d+", "", line)
            lines.append(line)
        elif line.startswith("|"):
            lines.append(re.sub(r" CreateTime: \d+", "", line) if "endTxnMarker" in line else line)
    return lines


def run(seed, ask, tools):
    removed = []
    with servers.running(servers.pelton_binary(), **SETTINGS) as pelton, servers.running(servers.HERE / "kafka", **SETTINGS) as kafka:
        sides = [Side("pelton", pelton, ask), Side("Kafka", kafka, ask)]
        for side in sides:
            side.create()
            for name in ("one", "two"):
                side.init(name)
        for number, now in enumerate(operations(seed)):
            for operation, *arguments in now:
                for side in sides:
                    getattr(side, operation)(*arguments)
            before = [side.bases() for side in sides]
            assert before[0] == before[1], f"segments of round {number} begin at {before}"
            for side in sides:
                side.clean()
            ours, theirs = (dump(tools, side) for side in sides)
            if ours != theirs:
                first = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
                raise AssertionError(f"seed {seed}, round {number}, line {first}:\npelton {ours[first:first + 3]}\nKafka  {theirs[first:first + 3]}")
            removed.append((len(ours), len(before[0]), len(sides[0].bases())))
    return removed


def main():
    seeds = [int(text) for text in sys.argv[1:]] or [1]
    ask, tools = Ask(), Tools()
    for seed in seeds:
        for number, (lines, before, after) in enumerate(run(seed, ask, tools)):
            print(f"seed {seed}, round {number}: {before} segments became {after}, {lines} lines of DumpLogSegments are Kafka's")
    tools.stop()
    ask.stop()


if __name__ == "__main__":
    main()
