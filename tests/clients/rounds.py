"""Writes rounds with confluent-kafka, as it is told to: one record of each key, wherever it likes.

Usage: rounds.py BOOTSTRAP TOPIC NAME TRANSACTIONAL. Each line that it reads is `ROUND PARTITIONS`; what it answers is the fate
of the round: `there`, `aborted`, or `unknown`. Every fourth transaction is aborted.
"""
import sys

from confluent_kafka import KafkaException, Producer

BOOTSTRAP, TOPIC, NAME, KIND = sys.argv[1:]
WAIT = 60.0
KEYS = [f"{region}-{NAME}-{n}" for region in ("eu", "us", "asia") for n in range(10)]
settings = {"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 60000,
            "reconnect.backoff.max.ms": 200, "log_level": 2, "metadata.recovery.strategy": "none"}
if KIND == "transactional":
    settings |= {"transactional.id": NAME, "transaction.timeout.ms": 60000}
producer = Producer(settings)
failed = []
if KIND == "transactional":
    producer.init_transactions(WAIT)


def end(number):
    """Ends the transaction of a round, whose records are acknowledged."""
    if number % 4 == 3:
        producer.abort_transaction(WAIT)
        return "aborted"
    try:
        producer.commit_transaction(WAIT)
        return "there"
    except KafkaException:
        producer.abort_transaction(WAIT)
        return "unknown"


for line in sys.stdin:
    number, partitions = map(int, line.split())
    if KIND == "transactional":
        producer.begin_transaction()
    for n, key in enumerate(KEYS):
        partition = (number * 7 + n) % partitions
        told = lambda error, _: error and failed.append(str(error))
        producer.produce(TOPIC, key=key, value=str(number), partition=partition, on_delivery=told)
    producer.flush(WAIT)
    if failed:
        sys.exit(f"round {number}: {failed[0]}")
    print(end(number) if KIND == "transactional" else "there", flush=True)
