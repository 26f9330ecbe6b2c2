#!/usr/bin/env python3
"""Apache Kafka takes up the partition directories of a pelton that was stopped or killed: equal records, groups and
transactional ids; and the indexes that it makes again, where it trusts none, are pelton's byte for byte.

$PELTON_BIN is pelton; run it with the Python of tests/clients (confluent-kafka). Kafka gives topics ids of its own, so each
directory keeps Kafka's `partition.metadata` and has all else of pelton's.
"""
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import servers
from run import Broker

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
TOPICS = {"packed": 5, "moved": 2}
CONFIG = {"index.interval.bytes": "500", "retention.ms": "-1"}  # the timestamps lie years back
SMALL = {**CONFIG, "segment.bytes": "20000"}  # Kafka takes no less than 1 MiB, and reads smaller ones all the same
CLEAN = ".kafka_cleanshutdown"
READ = [TopicPartition("packed", p, 10 + p) for p in range(5)]
WAIT = servers.WAIT


STARTED = []  # none of them outlives this program


def start(binary, home, **settings):
    broker = Broker(binary, home, **settings)
    STARTED.append(broker)
    return broker


def end(broker, how=signal.SIGTERM):
    if how == signal.SIGTERM:
        problems = broker.stop()
        assert not problems, f"{problems}\n{broker.tail()}"
    else:
        broker.p.send_signal(how)
        broker.p.wait()


def create(address, config):
    topics = [NewTopic(name, count, 1, config=config) for name, count in TOPICS.items()]
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    for future in admin.create_topics(topics).values():
        future.result(WAIT)


def mover(address):
    producer = Producer({"bootstrap.servers": address, "transactional.id": "mover", "linger.ms": 0, "log_level": 0})
    producer.init_transactions(WAIT)
    return producer


def reader(address, group="readers"):
    return Consumer({"bootstrap.servers": address, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error",
                     "enable.partition.eof": False})


def fill(address):
    create(address, SMALL)
    for number, codec in enumerate(CODECS):
        producer = Producer({"bootstrap.servers": address, "compression.type": codec, "batch.num.messages": 30, "linger.ms": 20})
        for n in range(400):
            producer.produce("packed", random.Random(n).randbytes(300), str(n).encode(), number, timestamp=1_700_000_000_000 + 7 * n,
                             headers=[("n", str(n).encode())])
        assert producer.flush(WAIT) == 0
    consumer, producer = reader(address), mover(address)
    consumer.commit(offsets=READ[:3], asynchronous=False)
    for n in range(20):
        producer.begin_transaction()
        for partition in range(2):
            producer.produce("moved", f"{n}".encode() * 200, b"abort" if n % 3 == 2 else b"commit", partition)
        if n == 4:
            producer.send_offsets_to_transaction(READ[3:], consumer.consumer_group_metadata(), WAIT)
        producer.abort_transaction(WAIT) if n % 3 == 2 else producer.commit_transaction(WAIT)
    consumer.close()


def patiently(ask):
    """Kafka takes connections before its partitions have their leaders."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > end or error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
            time.sleep(0.1)


def contents(address):
    """All that read-committed consumers find, by partition, and where the group is."""
    consumer, found = reader(address), {}
    for name, count in TOPICS.items():
        for partition in range(count):
            where = TopicPartition(name, partition, 0)
            low, high = patiently(lambda: consumer.get_watermark_offsets(where, WAIT))
            records = found[name, partition] = [(low, high)]
            consumer.assign([where])
            # A marker may be the last: the position comes to the end when all before it has been handed over.
            while (at := consumer.position([where])[0].offset) < high:
                for message in consumer.consume(500, 1.0):
                    assert not message.error(), message.error()
                    records.append((message.offset(), message.key(), message.value(), message.timestamp(), message.headers()))
                if records[-1][0] == high - 2 and name == "moved":
                    break
    found["group"] = [(p.topic, p.partition, p.offset) for p in consumer.committed(READ, WAIT)]
    consumer.close()
    return found


def partitions(logs):
    return sorted(path for path in logs.iterdir() if path.is_dir() and not path.name.startswith(("__cluster", "__pelton", "__share")))


def hand_over(ours, theirs):
    """Puts pelton's files where Kafka has its own empty ones."""
    for source in partitions(ours):
        target = theirs / source.name
        assert target.is_dir(), f"Kafka has no {source.name}"
        for file in target.iterdir():
            if file.name != "partition.metadata":
                file.unlink()
        for file in source.iterdir():
            if file.name != "partition.metadata":
                shutil.copy2(file, target)


def count_of(logs, topic):
    return sum(path.name.rpartition("-")[0] == topic for path in partitions(logs))


def compare_indexes(ours, theirs):
    compared, different = 0, []
    for source in partitions(ours):
        names = sorted(path.name for path in source.iterdir() if path.suffix in (".index", ".timeindex", ".txnindex"))
        last = max(path.stem for path in source.glob("*.log"))
        for name in names:
            # Kafka goes on with the last segment of all others.
            if source.name.startswith("packed-") or name.split(".")[0] < last:
                compared += 1
                if (source / name).read_bytes() != (theirs / source.name / name).read_bytes():
                    different.append(f"{source.name}/{name}")
    return compared, different


def adopt(how, clean):
    with tempfile.TemporaryDirectory(prefix="pelton-adopt-") as directory:
        home = pathlib.Path(directory)
        pelton = start(servers.pelton_binary(), home / "pelton")
        fill(pelton.address)
        expected = contents(pelton.address)
        end(pelton, how)
        if how == signal.SIGKILL:  # what is durable may stand in the journal alone until the next start
            end(start(servers.pelton_binary(), home / "pelton"), signal.SIGTERM)
        settings = {"offsets.topic.num.partitions": count_of(pelton.logs, "__consumer_offsets"),
                    "transaction.state.log.num.partitions": count_of(pelton.logs, "__transaction_state")}
        kafka = start(servers.HERE / "kafka", home / "kafka", **settings)
        create(kafka.address, CONFIG)
        mover(kafka.address)  # makes __transaction_state, and the commit __consumer_offsets
        consumer = reader(kafka.address)
        consumer.commit(offsets=READ[:1], asynchronous=False)
        consumer.close()
        end(kafka)
        hand_over(pelton.logs, kafka.logs)
        if not clean:
            (kafka.logs / CLEAN).unlink()
            for name in ("recovery-point-offset-checkpoint", "log-start-offset-checkpoint"):
                (kafka.logs / name).unlink()
            for index in kafka.logs.glob("*-*/*index"):
                index.unlink()
        kafka = start(servers.HERE / "kafka", home / "kafka", **settings)
        found = contents(kafka.address)
        for what, wanted in expected.items():
            assert found[what] == wanted, f"{what}: Kafka has {str(found[what])[:300]}, pelton had {str(wanted)[:300]}"
        producer = mover(kafka.address)
        producer.begin_transaction()
        producer.produce("moved", b"on", b"commit", 0)
        producer.commit_transaction(WAIT)
        end(kafka)
        compared, different = compare_indexes(pelton.logs, kafka.logs)
        assert compared > 20 and not different, f"{compared} indexes, different: {different}"
        return sum(len(records) for records in expected.values()), compared


def main():
    try:
        run()
    finally:
        for broker in STARTED:
            if broker.p.poll() is None:
                broker.p.kill()


def run():
    for how in (signal.SIGTERM, signal.SIGKILL):
        for clean in (True, False):
            records, indexes = adopt(how, clean)
            print(f"ok {how.name}, {'with' if clean else 'without'} a clean-shutdown marker: {records} records, {indexes} indexes",
                  flush=True)


if __name__ == "__main__":
    sys.exit(main())
