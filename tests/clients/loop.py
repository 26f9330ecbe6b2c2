"""Consume, transform, produce with confluent-kafka: every record of one topic once into another, until it is killed.

Usage: loop.py BOOTSTRAP FROM TO GROUP TRANSACTIONAL-ID. It prints `begin` and `end` around each transaction. What it
cannot mend by an abort ends it; whoever runs it starts it again.
"""
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

BATCH = 50  # records of a transaction
WORK = 0.02  # seconds that a transaction stays open, as if records needed some work
CALL = 10.0  # seconds that one call may wait
BOOTSTRAP, SOURCE, SINK, GROUP, ID = sys.argv[1:]
# A client that forgets its brokers when all are gone waits for ever for a group's coordinator that it forgot, in
# send_offsets_to_transaction (confluentinc/librdkafka#5511).
COMMON = {"bootstrap.servers": BOOTSTRAP, "reconnect.backoff.max.ms": 200, "log_level": 2, "metadata.recovery.strategy": "none"}


def say(word):
    print(word, flush=True)


def patiently(call, *args):
    """Retries what can be retried; False when the transaction must be aborted."""
    while True:
        try:
            call(*args, CALL)
            return True
        except KafkaException as e:
            error = e.args[0]
            if error.txn_requires_abort():
                return False
            if not error.retriable():
                raise


def transaction(consumer, producer, batch):
    producer.begin_transaction()
    try:
        for m in batch:
            producer.produce(SINK, m.value(), key=m.key(), partition=m.partition())
    except KafkaException:
        return False
    time.sleep(WORK)
    ends = {}
    for m in batch:
        ends[m.partition()] = m.offset() + 1
    offsets = [TopicPartition(SOURCE, p, offset) for p, offset in ends.items()]
    return (patiently(producer.send_offsets_to_transaction, offsets, consumer.consumer_group_metadata())
            and patiently(producer.commit_transaction))


def back_to_committed(consumer):
    for tp in consumer.committed(consumer.assignment(), CALL):
        consumer.seek(TopicPartition(tp.topic, tp.partition, max(0, tp.offset)))


def main():
    consumer = Consumer({**COMMON, "group.id": GROUP, "isolation.level": "read_committed", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "session.timeout.ms": 3000, "heartbeat.interval.ms": 300,
                         "fetch.wait.max.ms": 50})
    consumer.subscribe([SOURCE])
    producer = Producer({**COMMON, "transactional.id": ID, "transaction.timeout.ms": 10000, "linger.ms": 5})
    patiently(producer.init_transactions)
    while True:
        batch = [m for m in consumer.consume(BATCH, timeout=0.05) if not m.error()]
        if not batch:
            continue
        say("begin")
        if not transaction(consumer, producer, batch):
            if not patiently(producer.abort_transaction):
                sys.exit("an abort that must be aborted")
            back_to_committed(consumer)
        say("end")


main()
