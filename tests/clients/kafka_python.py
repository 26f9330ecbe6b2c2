"""kafka-python (pure Python) against a broker."""
import threading
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.structs import OffsetAndMetadata

import common
from common import Record, Suite, check_ordered, check_records, equal, eventually, until

suite = Suite("kafka-python", kafka.__version__)
BASE = {"bootstrap_servers": suite.bootstrap, "request_timeout_ms": 10000}
admin = KafkaAdminClient(**BASE)
PRODUCE, ORDER, TIME, GROUP, COMPACT, GONE = map(suite.name, ["produce", "order", "time", "group", "compact", "gone"])
COMMITTED = suite.name("committed")
TXN, SOURCE, SINK, FENCED = map(suite.name, ["transactions", "source", "sink", "fenced"])
# It refuses to send the others.
RECORDS = [r for r in common.RECORDS
           if (r.key is not None or r.value is not None) and all(v is not None for _, v in r.headers)]


def consumer(**more):
    return KafkaConsumer(**{**BASE, "auto_offset_reset": "earliest", "enable_auto_commit": False,
                            "fetch_max_wait_ms": 50, **more})


def raised(code, call):
    """Checks that `call` fails with the error class `code`."""
    try:
        call()
    except Exception as error:
        equal(type(error).__name__, code, f"error ({error})")
    else:
        raise AssertionError(f"no error, expected {code}")


def create(name, partitions, replicas=1, **configs):
    admin.create_topics({name: {"num_partitions": partitions, "replication_factor": replicas, "configs": configs}})


def create_topics():
    for name, n in [(PRODUCE, 15), (ORDER, 1), (TIME, 1), (GROUP, 4), (GONE, 1)]:
        create(name, n, **common.NO_RETENTION)
    create(COMPACT, 1, **{"cleanup.policy": "compact"})
    raised("TopicAlreadyExistsError", lambda: create(TIME, 1))
    raised("InvalidTopicError", lambda: create("not/a/name", 1))
    raised("InvalidConfigurationError", lambda: create(suite.name("x"), 1, **{"retention.ms": "soon"}))
    raised("InvalidPartitionsError", lambda: create(suite.name("x"), 0))
    raised("InvalidReplicationFactorError", lambda: create(suite.name("x"), 1, 9))


def metadata():
    topic = admin.describe_topics([PRODUCE])[0]
    equal(sorted(p["partition_index"] for p in topic["partitions"]), list(range(15)), "partitions")
    c = consumer()
    equal(list(c.end_offsets([TopicPartition(PRODUCE, p) for p in range(15)]).values()), [0] * 15, "end offsets")
    c.close()
    paged = admin.describe_topic_partitions([PRODUCE], response_partition_limit=4)
    cluster = admin.describe_cluster()
    return f"cluster {cluster['cluster_id']}, topic id {topic['topic_id']}, {str(paged)[:40]}"


def produce_all(topic, partition, records, conf):
    producer = KafkaProducer(**{**BASE, "linger_ms": 5, **conf})
    sent = [producer.send(topic, partition=partition, key=r.key, value=r.value, headers=r.headers, timestamp_ms=r.timestamp)
            for r in records]
    try:
        producer.flush(20)
        return [f.get(10).offset for f in sent]
    finally:
        producer.close()


def read(topic, partition, start=0, count=None, **conf):
    """All records from `start` to the end, as (offset, Record)."""
    c, tp, got, give_up = consumer(**conf), TopicPartition(topic, partition), [], time.monotonic() + common.WAIT
    try:
        c.assign([tp])
        end = c.end_offsets([tp])[tp]
        c.seek(tp, start)
        while c.position(tp) < end:
            equal(time.monotonic() < give_up, True, f"all read in time, {len(got)} records")
            for batch in c.poll(100).values():
                got += [(m.offset, Record(m.timestamp, m.key, m.value, list(m.headers))) for m in batch]
        return got
    finally:
        c.close()


def produce(codec, acks, partition):
    conf = {"compression_type": None if codec == "none" else codec, "acks": acks, "enable_idempotence": False}
    offsets = produce_all(PRODUCE, partition, RECORDS, conf)
    if acks:
        equal(offsets, list(range(len(RECORDS))), "offsets in delivery reports")
    got = until("all records", lambda: (g := read(PRODUCE, partition)) and len(g) >= len(RECORDS) and g)
    return check_records(got, RECORDS)


def idempotent():
    records = [Record(None, None, b"ordered %d" % i, []) for i in range(common.ORDERED)]
    offsets = produce_all(ORDER, 0, records, {"enable_idempotence": True, "batch_size": 200, "linger_ms": 0})
    equal(offsets, list(range(common.ORDERED)), "offsets in delivery reports")
    return check_ordered([(o, r.value) for o, r in read(ORDER, 0)])


def small_fetches():
    conf = {"max_partition_fetch_bytes": 1000, "fetch_max_bytes": 1000, "fetch_max_wait_ms": 50}
    for start in (0, 1, 11, 12, 24):
        check_records(read(PRODUCE, 4, start, **conf), RECORDS[start:], start)


def seek_timestamp():
    produce_all(TIME, 0, RECORDS[:13], {})
    produce_all(TIME, 0, RECORDS[13:], {})
    c, tp = consumer(), TopicPartition(TIME, 0)
    for timestamp, offset in common.timestamps(RECORDS).items():
        found = c.offsets_for_times({tp: timestamp})[tp]
        equal(found and found.offset, offset, f"offset for {timestamp}")
    equal((c.beginning_offsets([tp])[tp], c.end_offsets([tp])[tp]), (0, len(RECORDS)), "beginning, end")
    c.close()
    start = common.timestamps(RECORDS)[RECORDS[-1].timestamp]
    return check_records(read(TIME, 0, start), RECORDS[start:], start)


def transactional(name):
    producer = KafkaProducer(**BASE, transactional_id=suite.name(name), linger_ms=5)
    producer.init_transactions()
    return producer


def values(topic, partition, isolation):
    return [r.value for _, r in read(topic, partition, isolation_level=isolation)]


def transactions():
    create(TXN, 2)
    name = suite.name("transactions")
    described = lambda: admin.describe_transactions([name])[name]
    producer = transactional("transactions")
    for number, commit in enumerate(common.COMMITS):
        producer.begin_transaction()
        sent = [producer.send(TXN, value, partition=p) for p in (0, 1) for value in common.in_transaction(number, p)]
        for f in sent:
            f.get(20)
        visible = values(TXN, 0, "read_committed")
        equal(visible, common.transacted(0, "read_committed", number), "before the transaction ends")
        found = described()
        equal((found.state.value, len(found.topic_partitions)), ("Ongoing", 2), "state, partitions")
        (producer.commit_transaction if commit else producer.abort_transaction)()
    producer.close()
    for isolation in ("read_committed", "read_uncommitted"):
        for p in (0, 1):
            eventually(lambda: values(TXN, p, isolation), common.transacted(p, isolation), f"{isolation} of partition {p}")
    eventually(lambda: described().state.value, "CompleteCommit", "state")
    equal(described().producer_epoch, 0, "epoch, which only the newer protocol raises")
    return f"{len(common.COMMITS)} transactions"


def transaction_offsets():
    create(SOURCE, 2)
    create(SINK, 2)
    for p in (0, 1):
        produce_all(SOURCE, p, [Record(None, None, v, []) for v in common.to_transform(p)], {})
    partitions = [TopicPartition(SOURCE, p) for p in (0, 1)]
    wanted = sum(len(common.to_transform(p)) for p in (0, 1))
    c = consumer(group_id=suite.name("transform"), isolation_level="read_committed")
    c.subscribe([SOURCE])
    producer, done, aborted, give_up = transactional("transform"), 0, 0, time.monotonic() + common.WAIT
    while done < wanted:
        equal(time.monotonic() < give_up, True, f"all transformed in time, {done} records")
        polled = c.poll(1000, max_records=7)
        if not polled:
            continue
        producer.begin_transaction()
        sent = [producer.send(SINK, m.value.upper(), partition=m.partition) for batch in polled.values() for m in batch]
        producer.send_offsets_to_transaction({tp: OffsetAndMetadata(c.position(tp), "", -1) for tp in polled}, c.group_metadata())
        for f in sent:
            f.get(20)
        if done and not aborted:
            producer.abort_transaction()
            aborted = len(sent)
            for tp, batch in polled.items():
                c.seek(tp, batch[0].offset)
        else:
            producer.commit_transaction()
            done += len(sent)
        eventually(lambda: sum(c.committed(tp) or 0 for tp in partitions), done, "sum of the committed offsets")
    producer.close()
    c.close()
    eventually(lambda: sum(len(values(SINK, p, "read_committed")) for p in (0, 1)), wanted, "records read committed")
    twice = sum(common.check_transformed(p, values(SINK, p, "read_committed"), values(SINK, p, "read_uncommitted"))
                for p in (0, 1))
    equal(twice, aborted, "records written twice")
    return f"{done} records once, {aborted} of them aborted before"


def transaction_fenced():
    create(FENCED, 2)
    first = transactional("fenced")
    first.begin_transaction()
    first.send(FENCED, b"first", partition=0).get(20)
    second = transactional("fenced")
    raised("ProducerFencedError", first.commit_transaction)
    first.close()
    second.begin_transaction()
    second.send(FENCED, b"second", partition=0)
    second.commit_transaction()
    second.close()
    eventually(lambda: values(FENCED, 0, "read_committed"), [b"second"], "read_committed")
    equal(values(FENCED, 0, "read_uncommitted"), [b"first", b"second"], "read_uncommitted")


class Member(threading.Thread):
    """A group member that commits what it read and keeps what it owns up to date."""

    def __init__(self, group, assignor):
        super().__init__()
        self.got, self.owned, self.stopping, self.error = [], set(), False, None
        self.c = consumer(group_id=group, session_timeout_ms=10000, heartbeat_interval_ms=200,
                          partition_assignment_strategy=[assignor])
        self.c.subscribe([GROUP])
        self.start()

    def run(self):
        try:
            while not self.stopping:
                polled = self.c.poll(1000)  # one that ends between JoinGroup and SyncGroup loses the assignment
                for batch in polled.values():
                    self.got += [m.value.decode() for m in batch]
                if polled:
                    self.c.commit()
                self.owned = {tp.partition for tp in self.c.assignment()}
        except Exception as error:
            self.error = error
        finally:
            self.c.close()


def group(name, assignor):
    group_id, sent, members = suite.name(name), [], []

    def produced(phase):
        p = KafkaProducer(**BASE)
        for i in range(40):
            sent.append(f"{name} {phase} {i}")
            p.send(GROUP, partition=i % 4, value=sent[-1].encode())
        p.flush(20)
        p.close()

    def settled(*counts):
        def ready():
            for m in members:
                if m.error:
                    raise m.error
            owned = [m.owned for m in members if not m.stopping]
            return (sorted(map(len, owned)) == sorted(counts) and set().union(*owned) == set(range(4))
                    and sorted(v for m in members for v in m.got if v.startswith(name + " ")) == sorted(sent))
        until(lambda: f"assignment {counts} with {len(sent)} records read once (owned {[m.owned for m in members]}, "
                      f"read {[len(m.got) for m in members]})", ready)

    try:
        produced(1)
        members.append(Member(group_id, assignor))
        settled(4)
        members.append(Member(group_id, assignor))
        settled(2, 2)
        produced(2)
        settled(2, 2)
        found = admin.describe_groups([group_id])[group_id]
        equal((found["group_state"], len(found["members"])), ("Stable", 2), "state, members")
        members[0].stopping = True
        settled(4)
        produced(3)
        settled(4)
        equal(min(len(m.got) > 0 for m in members), True, "both members read")
    finally:
        for m in members:
            m.stopping = True
        for m in members:
            m.join(common.WAIT)
    return f"{len(sent)} records once, {found['protocol_data']}"


def committed():
    tp = TopicPartition(ORDER, 0)
    return admin.list_group_offsets({COMMITTED: [tp]})[COMMITTED][tp]


def commit_metadata():
    tp = TopicPartition(ORDER, 0)
    c = consumer(group_id=COMMITTED)
    c.assign([tp])
    c.commit({tp: OffsetAndMetadata(7, "höhe 7", -1)})
    found = c.committed(tp, metadata=True)
    equal((found.offset, found.metadata), (7, "höhe 7"), "committed")
    equal(c.committed(TopicPartition(TIME, 0)), None, "never committed")
    raised("OffsetMetadataTooLargeError", lambda: c.commit({tp: OffsetAndMetadata(7, "x" * 5000, -1)}))
    c.close()


def lag():
    c, tp = consumer(), TopicPartition(ORDER, 0)
    equal(c.end_offsets([tp])[tp] - committed().offset, common.ORDERED - 7, "lag")
    c.close()


def groups():
    listed = {g["group_id"]: g for g in admin.list_groups()}
    equal(listed[COMMITTED]["group_state"], "Empty", "state")
    found = admin.describe_groups([COMMITTED])[COMMITTED]
    equal((found["group_state"], found["members"]), ("Empty", []), "described")
    admin.alter_group_offsets(COMMITTED, {TopicPartition(ORDER, 0): OffsetAndMetadata(3, "", -1)})
    equal(committed().offset, 3, "altered offset")
    admin.delete_group_offsets(COMMITTED, [TopicPartition(ORDER, 0)])
    equal(committed().offset, -1, "deleted offset")


def delete_group():
    # A group that holds nothing any more is gone on pelton at once, on Kafka after a while: give it an offset again.
    admin.alter_group_offsets(COMMITTED, {TopicPartition(ORDER, 0): OffsetAndMetadata(3, "", -1)})
    equal(admin.delete_groups([COMMITTED])[COMMITTED], "OK", "deleted")
    equal(committed().offset, -1, "offset of a deleted group")


def configs():
    resource = lambda **change: ConfigResource(ConfigResourceType.TOPIC, TIME, change or None)
    found = lambda key: admin.describe_configs([resource()], config_filter="all")["topic"][TIME][key]["value"]
    equal((found("retention.ms"), found("cleanup.policy")), ("-1", "delete"), "retention.ms, cleanup.policy")
    admin.alter_configs([resource(**{"max.message.bytes": "50000"})])
    equal((found("max.message.bytes"), found("retention.ms")), ("50000", "-1"), "max.message.bytes, retention.ms")
    large = [Record(None, None, bytes(range(256)) * 300, [])]
    raised("MessageSizeTooLargeError", lambda: produce_all(TIME, 0, large, {}))
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, TIME, ["max.message.bytes"])])
    equal(produce_all(TIME, 0, large, {}), [len(RECORDS)], "offset")
    broker = ConfigResource(ConfigResourceType.BROKER, str(admin.describe_cluster()["brokers"][0]["broker_id"]))
    equal(len(admin.describe_configs([broker], config_filter="all")["broker"]), 1, "brokers")


def create_partitions():
    admin.create_partitions({GROUP: 6})
    until("6 partitions", lambda: len(admin.describe_topics([GROUP])[0]["partitions"]) == 6)
    equal(produce_all(GROUP, 5, RECORDS[:1], {}), [0], "offset")
    raised("InvalidPartitionsError", lambda: admin.create_partitions({GROUP: 5}))


def delete_records():
    tp = TopicPartition(ORDER, 0)
    equal(admin.delete_records({tp: 100})[tp]["low_watermark"], 100, "low watermark")
    raised("OffsetOutOfRangeError", lambda: admin.delete_records({tp: common.ORDERED + 1}))
    return check_ordered([(o, r.value) for o, r in read(ORDER, 0, 50)], 100)  # below the start: reset to earliest


def log_dirs():
    found = admin.describe_log_dirs()
    sizes = [p["partition_size"] for d in found[0]["log_dirs"] for t in d["topics"] if t["name"] == ORDER for p in t["partitions"]]
    equal(len(sizes) == 1 and sizes[0] > common.ORDERED * 10, True, f"size of {ORDER}: {sizes}")


def compacted():
    raised("InvalidRecordError", lambda: produce_all(COMPACT, 0, [Record(None, None, b"no key", [])], {}))
    equal(produce_all(COMPACT, 0, [Record(None, b"k", b"v", [])], {}), [0], "offset")


def holes():
    topic, end, left = common.holes()
    for start in common.holes_starts(end):
        got = read(topic, 0, start, isolation_level="read_committed")
        common.check_holes(start, [(o, r.key, r.value) for o, r in got])
    return f"{len(left)} of {end} offsets"


def placement():
    topic = suite.name("placed")
    create(topic, 12)
    producer = KafkaProducer(**BASE)
    sent = [producer.send(topic, b"v", key=key) for key in common.placed()]
    producer.flush(20)
    for future in sent:
        future.get(10)
    producer.close()


def delete_topic():
    admin.delete_topics([GONE])
    until("topic deleted", lambda: GONE not in admin.list_topics())
    raised("UnknownTopicOrPartitionError", lambda: admin.delete_topics([GONE]))


suite.run("create-topic", create_topics)
suite.run("metadata", metadata)
for name, *case in common.produce_cases():
    suite.run(name, produce, *case)
suite.skip("record-of-nulls", "the client refuses to send it")
suite.skip("null-header", "the client refuses to send it")
suite.run("idempotent", idempotent)
suite.run("small-fetches", small_fetches)
suite.run("seek-timestamp", seek_timestamp)
suite.run("transactions", transactions)
suite.run("transactions-offsets", transaction_offsets)
suite.run("transactions-fenced", transaction_fenced)
suite.run("group-range", group, "group-range", RangePartitionAssignor)
suite.run("group-roundrobin", group, "group-roundrobin", RoundRobinPartitionAssignor)
suite.run("group-sticky", group, "group-sticky", StickyPartitionAssignor)
suite.run("commit-metadata", commit_metadata)
suite.run("lag", lag)
suite.run("groups", groups)
suite.run("delete-group", delete_group)
suite.run("configs", configs)
suite.run("create-partitions", create_partitions)
suite.run("delete-records", delete_records)
suite.run("log-dirs", log_dirs)
suite.run("compacted-needs-key", compacted)
suite.run("compacted-holes", holes)
suite.run("placement", placement)
suite.run("delete-topic", delete_topic)
suite.done()
