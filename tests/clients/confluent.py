"""confluent-kafka (librdkafka) against a broker."""
import threading
import time

import os

import confluent_kafka as ck
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import admin as ka

import common
from common import RECORDS, Record, Suite, check_ordered, check_records, equal, eventually, until

suite = Suite("confluent-kafka", f"{ck.__version__} librdkafka {ck.libversion()[0]}")
BASE = {"bootstrap.servers": suite.bootstrap, "socket.timeout.ms": 10000}
admin = ka.AdminClient(BASE)
PRODUCE, ORDER, TIME, GROUP, COMPACT, GONE = map(suite.name, ["produce", "order", "time", "group", "compact", "gone"])
COMMITTED = suite.name("committed")
TXN, SOURCE, SINK, FENCED = map(suite.name, ["transactions", "source", "sink", "fenced"])
unacknowledged = []  # producers with acks=0: closing one could reset the connection before the broker read it all


def consumer(**more):
    return Consumer({**BASE, "group.id": suite.name("plain"), "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50, **more})


def raised(code, call):
    """Checks that `call` fails with `code`."""
    try:
        call()
    except KafkaException as error:
        equal(error.args[0].name(), code, "error")
    else:
        raise AssertionError(f"no error, expected {code}")


def create_topics():
    topics = [ka.NewTopic(name, n, 1, config=common.NO_RETENTION)
              for name, n in [(PRODUCE, 15), (ORDER, 1), (TIME, 1), (GROUP, 4), (GONE, 1)]]
    topics.append(ka.NewTopic(COMPACT, 1, 1, config={"cleanup.policy": "compact"}))
    for future in admin.create_topics(topics).values():
        future.result(10)
    create = lambda *topic, **more: admin.create_topics([ka.NewTopic(*topic, **more)])[topic[0]].result(10)
    raised("TOPIC_ALREADY_EXISTS", lambda: create(TIME, 1, 1))
    raised("TOPIC_EXCEPTION", lambda: create("not/a/name", 1, 1))
    raised("INVALID_CONFIG", lambda: create(suite.name("x"), 1, 1, config={"retention.ms": "soon"}))
    raised("INVALID_PARTITIONS", lambda: create(suite.name("x"), 0, 1))
    raised("INVALID_REPLICATION_FACTOR", lambda: create(suite.name("x"), 1, 9))


def metadata():
    found = admin.list_topics(timeout=10)
    equal(sorted(found.topics[PRODUCE].partitions), list(range(15)), "partitions")
    for p in found.topics[PRODUCE].partitions.values():
        equal((p.leader in found.brokers, p.replicas, p.isrs), (True, [p.leader], [p.leader]), "leader, replicas, isr")
    latest = {TopicPartition(PRODUCE, p): ka.OffsetSpec.latest() for p in range(15)}
    ends = lambda: [f.exception(10) or f.result().offset for f in admin.list_offsets(latest).values()]
    until("leader of every partition", lambda: ends() == [0] * 15)
    cluster = admin.describe_cluster().result(10)
    equal(cluster.cluster_id, found.cluster_id, "cluster id")
    topic = admin.describe_topics(ck.TopicCollection([PRODUCE]))[PRODUCE].result(10)
    equal(len(topic.partitions), 15, "described partitions")
    return f"cluster {found.cluster_id}, topic id {topic.topic_id}"


def produce_all(topic, partition, records, conf):
    failed, offsets = [], []
    producer = Producer({**BASE, "linger.ms": 5, **conf})
    for r in records:
        producer.produce(topic, partition=partition, key=r.key, value=r.value, headers=r.headers, timestamp=r.timestamp,
                         on_delivery=lambda error, m: failed.append(error) if error else offsets.append(m.offset()))
    equal(producer.flush(20), 0, "messages left")
    if failed:
        raise KafkaException(failed[0])
    if conf.get("acks") == 0:
        unacknowledged.append(producer)
    return offsets


def read(topic, partition, offset=0, conf={}):
    """All records from `offset` to the end, as (offset, Record)."""
    c = consumer(**{"enable.partition.eof": True, **conf})
    got, end = [], time.monotonic() + common.WAIT
    try:
        c.assign([TopicPartition(topic, partition, offset)])
        while time.monotonic() < end:
            m = c.poll(1)
            if m is None:
                continue
            if m.error():
                if m.error().code() == ck.KafkaError._PARTITION_EOF:
                    return got
                raise KafkaException(m.error())
            got.append((m.offset(), Record(m.timestamp()[1], m.key(), m.value(), m.headers() or [])))
        raise AssertionError(f"no end of partition within {common.WAIT} s, {len(got)} records")
    finally:
        c.close()


def produce(codec, acks, partition):
    offsets = produce_all(PRODUCE, partition, RECORDS, {"compression.type": codec, "acks": acks})
    if acks:
        equal(offsets, list(range(len(RECORDS))), "offsets in delivery reports")
    got = until("all records", lambda: (g := read(PRODUCE, partition)) and len(g) >= len(RECORDS) and g)
    return check_records(got, RECORDS)


def idempotent():
    records = [Record(0, None, b"ordered %d" % i, []) for i in range(common.ORDERED)]
    offsets = produce_all(ORDER, 0, records, {"enable.idempotence": True, "batch.num.messages": 7, "linger.ms": 0})
    equal(sorted(offsets), list(range(common.ORDERED)), "offsets in delivery reports")
    return check_ordered([(o, r.value) for o, r in read(ORDER, 0)])


def small_fetches():
    """A batch that is larger than the fetch must come whole."""
    conf = {"fetch.message.max.bytes": 1000, "fetch.max.bytes": 1000, "message.max.bytes": 1000}
    check_records(read(PRODUCE, 4, conf=conf), RECORDS)
    for start in (1, 11, 12, 24):
        check_records(read(PRODUCE, 4, start, conf), RECORDS[start:], start)


def seek_timestamp():
    produce_all(TIME, 0, RECORDS[:13], {})
    produce_all(TIME, 0, RECORDS[13:], {})
    c = consumer()
    for timestamp, offset in common.timestamps(RECORDS).items():
        found = c.offsets_for_times([TopicPartition(TIME, 0, timestamp)], timeout=10)[0]
        equal(found.offset, ck.OFFSET_END if offset is None else offset, f"offset for {timestamp}")
    equal(c.get_watermark_offsets(TopicPartition(TIME, 0), timeout=10), (0, len(RECORDS)), "watermarks")
    c.close()
    spec = {TopicPartition(TIME, 0): ka.OffsetSpec.max_timestamp()}
    newest = list(admin.list_offsets(spec).values())[0].result(10)
    equal((newest.offset, newest.timestamp), (len(RECORDS) - 1, RECORDS[-1].timestamp), "largest timestamp")
    start = common.timestamps(RECORDS)[RECORDS[-1].timestamp]
    return check_records(read(TIME, 0, start), RECORDS[start:], start)


def transactional(name):
    producer = Producer({**BASE, "transactional.id": suite.name(name), "linger.ms": 5})
    producer.init_transactions(20)
    return producer


def create_two(*names):
    for future in admin.create_topics([ka.NewTopic(name, 2, 1) for name in names]).values():
        future.result(10)


def values(topic, partition, isolation):
    return [r.value for _, r in read(topic, partition, conf={"isolation.level": isolation})]


def transactions():
    create_two(TXN)
    producer = transactional("transactions")
    for number, commit in enumerate(common.COMMITS):
        producer.begin_transaction()
        for p in (0, 1):
            for value in common.in_transaction(number, p):
                producer.produce(TXN, value, partition=p)
        equal(producer.flush(20), 0, "messages left")
        visible = values(TXN, 0, "read_committed")
        equal(visible, common.transacted(0, "read_committed", number), "before the transaction ends")
        (producer.commit_transaction if commit else producer.abort_transaction)(20)
    for isolation in ("read_committed", "read_uncommitted"):
        for p in (0, 1):
            eventually(lambda: values(TXN, p, isolation), common.transacted(p, isolation), f"{isolation} of partition {p}")
    return f"{len(common.COMMITS)} transactions"


def transaction_offsets():
    create_two(SOURCE, SINK)
    for p in (0, 1):
        produce_all(SOURCE, p, [Record(0, None, v, []) for v in common.to_transform(p)], {})
    partitions = [TopicPartition(SOURCE, p) for p in (0, 1)]
    wanted = sum(len(common.to_transform(p)) for p in (0, 1))
    c = consumer(**{"group.id": suite.name("transform"), "isolation.level": "read_committed"})
    c.subscribe([SOURCE])
    producer, done, aborted, give_up = transactional("transform"), 0, 0, time.monotonic() + common.WAIT
    committed = lambda: sum(max(0, tp.offset) for tp in c.committed(partitions, timeout=10))
    while done < wanted:
        equal(time.monotonic() < give_up, True, f"all transformed in time, {done} records")
        batch = c.consume(7, timeout=1)
        for m in batch:
            if m.error():
                raise KafkaException(m.error())
        if not batch:
            continue
        producer.begin_transaction()
        for m in batch:
            producer.produce(SINK, m.value().upper(), partition=m.partition())
        producer.send_offsets_to_transaction([tp for tp in c.position(partitions) if tp.offset >= 0],
                                             c.consumer_group_metadata(), 20)
        equal(producer.flush(20), 0, "messages left")
        if done and not aborted:
            producer.abort_transaction(20)
            aborted = len(batch)
            for p in {m.partition() for m in batch}:
                c.seek(TopicPartition(SOURCE, p, min(m.offset() for m in batch if m.partition() == p)))
        else:
            producer.commit_transaction(20)
            done += len(batch)
        eventually(committed, done, "sum of the committed offsets")
    c.close()
    eventually(lambda: sum(len(values(SINK, p, "read_committed")) for p in (0, 1)), wanted, "records read committed")
    twice = sum(common.check_transformed(p, values(SINK, p, "read_committed"), values(SINK, p, "read_uncommitted"))
                for p in (0, 1))
    equal(twice, aborted, "records written twice")
    return f"{done} records once, {aborted} of them aborted before"


def transaction_fenced():
    create_two(FENCED)
    first = transactional("fenced")
    first.begin_transaction()
    first.produce(FENCED, b"first", partition=0)
    equal(first.flush(20), 0, "messages left")
    second = transactional("fenced")
    raised("_FENCED", lambda: first.commit_transaction(20))
    second.begin_transaction()
    second.produce(FENCED, b"second", partition=0)
    second.commit_transaction(20)
    eventually(lambda: values(FENCED, 0, "read_committed"), [b"second"], "read_committed")
    equal(values(FENCED, 0, "read_uncommitted"), [b"first", b"second"], "read_uncommitted")


class Member(threading.Thread):
    """A group member that commits what it read and keeps what it owns up to date."""

    def __init__(self, group, conf):
        super().__init__()
        self.got, self.owned, self.stopping, self.error = [], set(), False, None
        self.c = consumer(**{"group.id": group, "session.timeout.ms": 10000, "heartbeat.interval.ms": 200, **conf})
        own = lambda c, ps: self.owned.update(p.partition for p in ps)
        disown = lambda c, ps: self.owned.difference_update(p.partition for p in ps)
        self.c.subscribe([GROUP], on_assign=own, on_revoke=disown, on_lost=disown)
        self.start()

    def run(self):
        try:
            while not self.stopping:
                m = self.c.poll(0.05)
                if m and m.error():
                    raise KafkaException(m.error())
                if m:
                    self.got.append(m.value().decode())
                    self.c.commit(m, asynchronous=False)
        except Exception as error:
            self.error = error
        finally:
            self.c.close()


def group(name, conf):
    group_id, sent, members = suite.name(name), [], []

    def produced(phase):
        p = Producer(BASE)
        for i in range(40):
            sent.append(f"{name} {phase} {i}")
            p.produce(GROUP, partition=i % 4, value=sent[-1])
        p.flush(20)

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
        members.append(Member(group_id, conf))
        settled(4)
        members.append(Member(group_id, conf))
        settled(2, 2)
        produced(2)
        settled(2, 2)
        found = admin.describe_consumer_groups([group_id])[group_id].result(10)
        equal((found.state.name, len(found.members)), ("STABLE", 2), "state, members")
        equal(sorted(tp.partition for m in found.members for tp in m.assignment.topic_partitions), [0, 1, 2, 3], "assignment")
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
    return f"{len(sent)} records once, {found.partition_assignor}"


def committed(tp):
    request = ck.ConsumerGroupTopicPartitions(COMMITTED, [tp])
    return admin.list_consumer_group_offsets([request])[COMMITTED].result(10).topic_partitions[0]


def commit_metadata():
    c = consumer(**{"group.id": COMMITTED})
    c.commit(offsets=[TopicPartition(ORDER, 0, 7, metadata="höhe 7")], asynchronous=False)
    found = c.committed([TopicPartition(ORDER, 0), TopicPartition(TIME, 0)], timeout=10)
    equal([(f.offset, f.metadata) for f in found], [(7, "höhe 7"), (ck.OFFSET_INVALID, None)], "committed")
    raised("OFFSET_METADATA_TOO_LARGE", lambda: c.commit(
        offsets=[TopicPartition(ORDER, 0, 7, metadata="x" * 5000)], asynchronous=False))
    c.close()


def lag():
    found = committed(TopicPartition(ORDER, 0))
    end = list(admin.list_offsets({TopicPartition(ORDER, 0): ka.OffsetSpec.latest()}).values())[0].result(10)
    equal(end.offset - found.offset, common.ORDERED - 7, "lag")


def groups():
    listed = {g.group_id: g for g in admin.list_consumer_groups().result(10).valid}
    equal([listed[COMMITTED].state.name, listed[COMMITTED].is_simple_consumer_group], ["EMPTY", True], "state, simple")
    equal(suite.name("group-eager") in listed, True, "listed")
    found = admin.describe_consumer_groups([COMMITTED])[COMMITTED].result(10)
    equal((found.state.name, found.members), ("EMPTY", []), "described")
    changed = ck.ConsumerGroupTopicPartitions(COMMITTED, [TopicPartition(ORDER, 0, 3)])
    admin.alter_consumer_group_offsets([changed])[COMMITTED].result(10)
    equal(committed(TopicPartition(ORDER, 0)).offset, 3, "altered offset")


def delete_group():
    admin.delete_consumer_groups([COMMITTED])[COMMITTED].result(10)
    equal(committed(TopicPartition(ORDER, 0)).offset, ck.OFFSET_INVALID, "offset of a deleted group")
    raised("GROUP_ID_NOT_FOUND", lambda: admin.delete_consumer_groups([COMMITTED])[COMMITTED].result(10))


def config(topic):
    resource = ka.ConfigResource(ka.ResourceType.TOPIC, topic)
    return admin.describe_configs([resource])[resource].result(10)


def configs():
    found = config(TIME)
    equal((found["retention.ms"].value, found["retention.ms"].is_default), ("-1", False), "retention.ms")
    equal((found["cleanup.policy"].value, found["cleanup.policy"].is_default), ("delete", True), "cleanup.policy")
    entry = lambda op, key, value: ka.ConfigResource(ka.ResourceType.TOPIC, TIME, incremental_configs=[
        ka.ConfigEntry(key, value, incremental_operation=ka.AlterConfigOpType[op])])
    alter = lambda *change: [f.result(10) for f in admin.incremental_alter_configs([entry(*change)]).values()]
    alter("SET", "max.message.bytes", "50000")
    equal(config(TIME)["max.message.bytes"].value, "50000", "max.message.bytes")
    large = [Record(0, None, bytes(range(256)) * 300, [])]
    raised("MSG_SIZE_TOO_LARGE", lambda: produce_all(TIME, 0, large, {}))
    alter("DELETE", "max.message.bytes", "")
    equal(produce_all(TIME, 0, large, {}), [len(RECORDS)], "offset")
    raised("INVALID_CONFIG", lambda: alter("SET", "max.message.bytes", "many"))
    broker = ka.ConfigResource(ka.ResourceType.BROKER, str(list(admin.list_topics(timeout=10).brokers)[0]))
    return f"{len(found)} of topic, {len(admin.describe_configs([broker])[broker].result(10))} of broker"


def create_partitions():
    grow = lambda n: admin.create_partitions([ka.NewPartitions(GROUP, n)])[GROUP].result(10)
    grow(6)
    until("6 partitions", lambda: len(admin.list_topics(GROUP, timeout=10).topics[GROUP].partitions) == 6)
    equal(produce_all(GROUP, 5, RECORDS[:1], {}), [0], "offset")
    raised("INVALID_PARTITIONS", lambda: grow(5))


def delete_records():
    deleted = lambda offset: admin.delete_records([TopicPartition(ORDER, 0, offset)])[TopicPartition(ORDER, 0)].result(10)
    equal(deleted(100).low_watermark, 100, "low watermark")
    raised("OFFSET_OUT_OF_RANGE", lambda: deleted(common.ORDERED + 1))
    check_ordered([(o, r.value) for o, r in read(ORDER, 0, 50)], 100)  # below the start: reset to earliest
    return check_ordered([(o, r.value) for o, r in read(ORDER, 0, ck.OFFSET_BEGINNING)], 100)


def compacted():
    raised("INVALID_RECORD", lambda: produce_all(COMPACT, 0, [Record(0, None, b"no key", [])], {}))
    equal(produce_all(COMPACT, 0, [Record(0, b"k", b"v", [])], {}), [0], "offset")


def holes():
    topic, end, left = common.holes()
    for start in common.holes_starts(end):
        common.check_holes(start, [(o, r.key, r.value) for o, r in read(topic, 0, start)])
    return f"{len(left)} of {end} offsets"


def placement():
    topic = suite.name("placed")
    admin.create_topics([ka.NewTopic(topic, 12, 1)])[topic].result(10)
    producer = Producer(BASE)
    for key in common.placed():
        producer.produce(topic, b"v", key=key)
    equal(producer.flush(20), 0, "messages left")


def routed():
    """A topic that places records by itself, and writes of a transactional and of an idempotent producer. run.py looks at it."""
    topic = suite.name("routed")
    new = ka.NewTopic(topic, 12, 1, config={"pelton.partitioner": "fnv1a"})
    admin.create_topics([new])[topic].result(10)
    producer = transactional("routed")
    for number, commit in enumerate(common.COMMITS):
        producer.begin_transaction()
        for key in common.routed():
            producer.produce(topic, str(number), key=key)
        producer.commit_transaction(20) if commit else producer.abort_transaction(20)
    producer = Producer({**BASE, "enable.idempotence": True})
    for key in common.routed():
        producer.produce(topic, b"last", key=key)
    equal(producer.flush(20), 0, "messages left")


def delete_topic():
    admin.delete_topics([GONE])[GONE].result(10)
    until("topic deleted", lambda: GONE not in admin.list_topics(timeout=10).topics)
    raised("UNKNOWN_TOPIC_OR_PART", lambda: admin.delete_topics([GONE])[GONE].result(10))


suite.run("create-topic", create_topics)
suite.run("metadata", metadata)
for name, *case in common.produce_cases():
    suite.run(name, produce, *case)
suite.run("idempotent", idempotent)
suite.run("small-fetches", small_fetches)
suite.run("seek-timestamp", seek_timestamp)
suite.run("transactions", transactions)
suite.run("transactions-offsets", transaction_offsets)
suite.run("transactions-fenced", transaction_fenced)
suite.run("group-eager", group, "group-eager", {"partition.assignment.strategy": "range"})
suite.run("group-cooperative", group, "group-cooperative", {"partition.assignment.strategy": "cooperative-sticky"})
suite.run("group-roundrobin", group, "group-roundrobin", {"partition.assignment.strategy": "roundrobin"})
suite.run("commit-metadata", commit_metadata)
suite.run("lag", lag)
suite.run("groups", groups)
suite.run("delete-group", delete_group)
suite.run("configs", configs)
suite.run("create-partitions", create_partitions)
suite.run("delete-records", delete_records)
suite.run("compacted-needs-key", compacted)
suite.run("compacted-holes", holes)
suite.run("placement", placement)
if "PELTON_ROUTED" in os.environ:
    suite.run("routed", routed)
suite.run("delete-topic", delete_topic)
suite.done()
