"""Makes a compacted topic that its broker's cleaner has been through, and writes down what a consumer must read from it:

    holes.py BOOTSTRAP FILE

Batches in every codec lost some of their records, all of them (a producer's last batch stays, empty), or went whole;
so did those of transactions, committed and aborted, and their markers. The newest committed record of each key is left,
at its offset, tombstones included: FILE has a line for each, after one with the topic and the number of its offsets.
"""
import random
import sys
import time
import urllib.parse
import uuid

import confluent_kafka as ck
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import admin as ka

import common

ROUNDS = 15
KEYS = 40
SEGMENT_MS = 50  # rounds have segments of their own: their timestamps, and those of markers, are further apart
BOOTSTRAP, FILE = sys.argv[1:]
TOPIC = f"holes-{uuid.uuid4().hex[:8]}"
CONFIG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": str(SEGMENT_MS)}


def write(number, rng, newest):
    """One round, by a producer of its own. What it committed is in `newest`: key, offset and value."""
    written = {}
    conf = {"bootstrap.servers": BOOTSTRAP, "compression.type": common.CODECS[number % len(common.CODECS)],
            "enable.idempotence": True, "linger.ms": 50, "batch.num.messages": 7}
    transactional = number % 3 == 1
    if transactional:
        conf["transactional.id"] = f"{TOPIC}-{number}"
    producer = Producer(conf)
    if transactional:
        producer.init_transactions(20)
        producer.begin_transaction()

    def delivered(error, message):
        if error:
            raise ck.KafkaException(error)
        written[message.key()] = (message.offset(), message.value())

    # Kafka begins a segment by the timestamps of batches.
    time.sleep(2 * SEGMENT_MS / 1000)
    for key in rng.sample(range(KEYS), KEYS // 2):
        value = None if rng.random() < 0.2 else b"round %d of key %d " % (number, key) * rng.randint(1, 9)
        producer.produce(TOPIC, partition=0, key=b"key %d" % key, value=value, on_delivery=delivered)
    common.equal(producer.flush(20), 0, "messages left")
    commits = not transactional or number % 2 == 0
    if transactional:
        (producer.commit_transaction if commits else producer.abort_transaction)(20)
    if commits:
        newest.update(written)


def read():
    """Everything that is there, as {key: [(offset, value)]}."""
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": TOPIC, "enable.partition.eof": True,
                         "isolation.level": "read_committed", "auto.offset.reset": "error"})
    found = {}
    try:
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        while True:
            message = consumer.poll(common.WAIT)
            if message is None:
                raise AssertionError(f"no end of {TOPIC} within {common.WAIT} s")
            if message.error():
                if message.error().code() == ck.KafkaError._PARTITION_EOF:
                    return found
                raise ck.KafkaException(message.error())
            found.setdefault(message.key(), []).append((message.offset(), message.value()))
    finally:
        consumer.close()


def main():
    admin = ka.AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin.create_topics([ka.NewTopic(TOPIC, 1, 1, config=CONFIG)])[TOPIC].result(20)
    rng, newest = random.Random(9), {}
    for number in range(ROUNDS):
        write(number, rng, newest)
    # The active segment is never cleaned: it is this record's.
    last = {}
    time.sleep(2 * SEGMENT_MS / 1000)
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    producer.produce(TOPIC, partition=0, key=b"last", value=b"",
                     on_delivery=lambda error, m: last.update({m.key(): (m.offset(), m.value())}))
    common.equal(producer.flush(20), 0, "messages left")
    newest.update(last)
    wanted = {key: [where] for key, where in newest.items()}
    common.until("clean of all but the active segment", lambda: read() == wanted, 60)
    end = last[b"last"][0] + 1
    with open(FILE, "w", encoding="ascii") as out:
        out.write(f"{TOPIC}\t{end}\n")
        for key, (offset, value) in sorted(newest.items(), key=lambda entry: entry[1][0]):
            text = "-" if value is None else urllib.parse.quote_from_bytes(value)
            out.write(f"{offset}\t{urllib.parse.quote_from_bytes(key)}\t{text}\n")
    print(f"{TOPIC}: {len(newest)} of {end} offsets are left")


main()
