"""aiokafka (asyncio) against a broker."""
import asyncio
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata

import common
from common import Record, Suite, check_ordered, check_records, equal

suite = Suite("aiokafka", aiokafka.__version__)
BASE = {"bootstrap_servers": suite.bootstrap, "request_timeout_ms": 10000}
PRODUCE, ORDER, TIME, GROUP, COMPACT, GONE = map(suite.name, ["produce", "order", "time", "group", "compact", "gone"])
COMMITTED = suite.name("committed")
TXN, SOURCE, SINK, FENCED = map(suite.name, ["transactions", "source", "sink", "fenced"])
RECORDS = [r for r in common.RECORDS if r.key is not None or r.value is not None]  # it refuses to send the others


async def raised(code, call):
    """Checks that the awaitable `call` fails with the error class `code`."""
    try:
        await call
    except Exception as error:
        equal(type(error).__name__, code, f"error ({error})")
    else:
        raise AssertionError(f"no error, expected {code}")


async def until(what, attempt):
    end = time.monotonic() + common.WAIT
    while not (result := await attempt()):
        equal(time.monotonic() < end, True, f"{what()} within {common.WAIT} s")
        await asyncio.sleep(0.02)
    return result


async def eventually(attempt, expected, what):
    """Like `equal`, but `attempt` may need time: Kafka answers a commit before it has written all markers."""
    end = time.monotonic() + common.WAIT
    while (actual := await attempt()) != expected and time.monotonic() < end:
        await asyncio.sleep(0.02)
    equal(actual, expected, what)


def consumer(**more):
    return AIOKafkaConsumer(**{**BASE, "auto_offset_reset": "earliest", "enable_auto_commit": False,
                               "fetch_max_wait_ms": 50, **more})


async def create(admin, name, partitions, replicas=1, **configs):
    answer = await admin.create_topics([NewTopic(name, partitions, replicas, topic_configs=configs)])
    return answer.topic_errors[0][1]


async def create_topics(admin):
    for name, n in [(PRODUCE, 15), (ORDER, 1), (TIME, 1), (GROUP, 4), (GONE, 1)]:
        equal(await create(admin, name, n, **common.NO_RETENTION), 0, "error code")
    equal(await create(admin, COMPACT, 1, **{"cleanup.policy": "compact"}), 0, "error code")
    equal(await create(admin, TIME, 1), 36, "TOPIC_ALREADY_EXISTS")
    equal(await create(admin, "not/a/name", 1), 17, "INVALID_TOPIC_EXCEPTION")
    equal(await create(admin, suite.name("x"), 1, **{"retention.ms": "soon"}), 40, "INVALID_CONFIG")
    equal(await create(admin, suite.name("x"), 0), 37, "INVALID_PARTITIONS")
    equal(await create(admin, suite.name("x"), 1, 9), 38, "INVALID_REPLICATION_FACTOR")


async def metadata(admin):
    topic = (await admin.describe_topics([PRODUCE]))[0]
    equal(sorted(p["partition"] for p in topic["partitions"]), list(range(15)), "partitions")
    async with consumer() as c:
        ends = await c.end_offsets([TopicPartition(PRODUCE, p) for p in range(15)])
    equal(list(ends.values()), [0] * 15, "end offsets")
    return f"cluster {(await admin.describe_cluster())['cluster_id']}"


async def produce_all(topic, partition, records, **conf):
    async with AIOKafkaProducer(**{**BASE, "linger_ms": 5, **conf}) as p:
        sent = [await p.send(topic, partition=partition, key=r.key, value=r.value, headers=r.headers,
                             timestamp_ms=r.timestamp) for r in records]
        done = await asyncio.gather(*sent)
        return [d.offset for d in done] if conf.get("acks") != 0 else []


async def read(topic, partition, start=0, **conf):
    """All records from `start` to the end, as (offset, Record)."""
    tp, got, give_up = TopicPartition(topic, partition), [], time.monotonic() + common.WAIT
    async with consumer(**conf) as c:
        c.assign([tp])
        end = (await c.end_offsets([tp]))[tp]
        c.seek(tp, start)
        while await c.position(tp) < end:
            equal(time.monotonic() < give_up, True, f"all read in time, {len(got)} records")
            for batch in (await c.getmany(timeout_ms=100)).values():
                got += [(m.offset, Record(m.timestamp, m.key, m.value, list(m.headers))) for m in batch]
    return got


async def produce(codec, acks, partition):
    conf = {"compression_type": None if codec == "none" else codec, "acks": "all" if acks == -1 else acks}
    offsets = await produce_all(PRODUCE, partition, RECORDS, **conf)
    if acks:
        equal(offsets, list(range(len(RECORDS))), "offsets in delivery reports")

    async def complete():
        got = await read(PRODUCE, partition)
        return len(got) >= len(RECORDS) and got
    return check_records(await until(lambda: "all records", complete), RECORDS)


async def idempotent():
    records = [Record(None, None, b"ordered %d" % i, []) for i in range(common.ORDERED)]
    offsets = await produce_all(ORDER, 0, records, enable_idempotence=True, max_batch_size=200, linger_ms=0)
    equal(offsets, list(range(common.ORDERED)), "offsets in delivery reports")
    return check_ordered([(o, r.value) for o, r in await read(ORDER, 0)])


async def small_fetches():
    for start in (0, 1, 11, 12, 23):
        got = await read(PRODUCE, 4, start, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)
        check_records(got, RECORDS[start:], start)


async def seek_timestamp():
    await produce_all(TIME, 0, RECORDS[:13])
    await produce_all(TIME, 0, RECORDS[13:])
    tp, wanted = TopicPartition(TIME, 0), common.timestamps(RECORDS)
    async with consumer() as c:
        for timestamp, offset in wanted.items():
            found = (await c.offsets_for_times({tp: timestamp}))[tp]
            equal(found and found.offset, offset, f"offset for {timestamp}")
        equal(((await c.beginning_offsets([tp]))[tp], (await c.end_offsets([tp]))[tp]), (0, len(RECORDS)), "beginning, end")
    start = wanted[RECORDS[-1].timestamp]
    return check_records(await read(TIME, 0, start), RECORDS[start:], start)


def transactional(name):
    return AIOKafkaProducer(**BASE, transactional_id=suite.name(name), linger_ms=5)


async def values(topic, partition, isolation):
    return [r.value for _, r in await read(topic, partition, isolation_level=isolation)]


async def transactions(admin):
    equal(await create(admin, TXN, 2), 0, "error code")
    async with transactional("transactions") as producer:
        for number, commit in enumerate(common.COMMITS):
            await producer.begin_transaction()
            sent = [await producer.send(TXN, value, partition=p) for p in (0, 1) for value in common.in_transaction(number, p)]
            await asyncio.gather(*sent)
            visible = await values(TXN, 0, "read_committed")
            equal(visible, common.transacted(0, "read_committed", number), "before the transaction ends")
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    for isolation in ("read_committed", "read_uncommitted"):
        for p in (0, 1):
            await eventually(lambda: values(TXN, p, isolation), common.transacted(p, isolation), f"{isolation} of partition {p}")
    return f"{len(common.COMMITS)} transactions"


async def transaction_offsets(admin):
    equal([await create(admin, name, 2) for name in (SOURCE, SINK)], [0, 0], "error codes")
    for p in (0, 1):
        await produce_all(SOURCE, p, [Record(None, None, v, []) for v in common.to_transform(p)])
    group_id, wanted = suite.name("transform"), sum(len(common.to_transform(p)) for p in (0, 1))
    done, aborted, give_up = 0, 0, time.monotonic() + common.WAIT

    async def committed():
        return sum(o.offset for o in (await admin.list_consumer_group_offsets(group_id)).values())

    async def records():
        return sum([len(await values(SINK, p, "read_committed")) for p in (0, 1)])
    async with consumer(group_id=group_id, isolation_level="read_committed") as c, transactional("transform") as producer:
        c.subscribe([SOURCE])
        while done < wanted:
            equal(time.monotonic() < give_up, True, f"all transformed in time, {done} records")
            polled = await c.getmany(timeout_ms=1000, max_records=7)
            if not polled:
                continue
            await producer.begin_transaction()
            sent = [await producer.send(SINK, m.value.upper(), partition=m.partition) for batch in polled.values() for m in batch]
            await producer.send_offsets_to_transaction({tp: await c.position(tp) for tp in polled}, group_id)
            await asyncio.gather(*sent)
            if done and not aborted:
                await producer.abort_transaction()
                aborted = len(sent)
                for tp, batch in polled.items():
                    c.seek(tp, batch[0].offset)
            else:
                await producer.commit_transaction()
                done += len(sent)
            await eventually(committed, done, "sum of the committed offsets")
    await eventually(records, wanted, "records read committed")
    twice = 0
    for p in (0, 1):
        twice += common.check_transformed(p, await values(SINK, p, "read_committed"), await values(SINK, p, "read_uncommitted"))
    equal(twice, aborted, "records written twice")
    return f"{done} records once, {aborted} of them aborted before"


async def transaction_fenced(admin):
    equal(await create(admin, FENCED, 2), 0, "error code")
    first = transactional("fenced")
    await first.start()
    await first.begin_transaction()
    await first.send_and_wait(FENCED, b"first", partition=0)
    async with transactional("fenced") as second:
        await raised("ProducerFenced", first.commit_transaction())
        async with second.transaction():
            await second.send(FENCED, b"second", partition=0)
    await first.stop()
    await eventually(lambda: values(FENCED, 0, "read_committed"), [b"second"], "read_committed")
    equal(await values(FENCED, 0, "read_uncommitted"), [b"first", b"second"], "read_uncommitted")


class Member(ConsumerRebalanceListener):
    """A group member that commits what it read and keeps what it owns up to date."""

    def __init__(self, group, assignor):
        self.got, self.owned, self.stopping = [], set(), False
        self.c = consumer(group_id=group, session_timeout_ms=10000, heartbeat_interval_ms=200,
                          partition_assignment_strategy=[assignor])
        self.c.subscribe([GROUP], listener=self)
        self.task = asyncio.create_task(self.run())

    async def on_partitions_revoked(self, revoked):
        self.owned -= {tp.partition for tp in revoked}

    async def on_partitions_assigned(self, assigned):
        self.owned = {tp.partition for tp in assigned}

    async def run(self):
        async with self.c:
            while not self.stopping:
                polled = await self.c.getmany(timeout_ms=50)
                for batch in polled.values():
                    self.got += [m.value.decode() for m in batch]
                if polled:
                    await self.c.commit()


async def group(admin, name, assignor):
    group_id, sent, members = suite.name(name), [], []

    async def produced(phase):
        async with AIOKafkaProducer(**BASE) as p:
            for i in range(40):
                sent.append(f"{name} {phase} {i}")
                await p.send(GROUP, partition=i % 4, value=sent[-1].encode())

    async def settled(*counts):
        async def ready():
            for m in members:
                if m.task.done():
                    m.task.result()
            owned = [m.owned for m in members if not m.stopping]
            return (sorted(map(len, owned)) == sorted(counts) and set().union(*owned) == set(range(4))
                    and sorted(v for m in members for v in m.got if v.startswith(name + " ")) == sorted(sent))
        await until(lambda: f"assignment {counts} with {len(sent)} records read once (owned {[m.owned for m in members]}, "
                            f"read {[len(m.got) for m in members]})", ready)

    try:
        await produced(1)
        members.append(Member(group_id, assignor))
        await settled(4)
        members.append(Member(group_id, assignor))
        await settled(2, 2)
        await produced(2)
        await settled(2, 2)
        found = (await admin.describe_consumer_groups([group_id]))[0].groups[0]
        equal((found[2], found[4], len(found[5])), ("Stable", assignor.name, 2), "state, assignor, members")
        members[0].stopping = True
        await settled(4)
        await produced(3)
        await settled(4)
        equal(min(len(m.got) > 0 for m in members), True, "both members read")
    finally:
        for m in members:
            m.stopping = True
        await asyncio.wait([m.task for m in members], timeout=common.WAIT)
    return f"{len(sent)} records once, {found[4]}"


async def commit_metadata():
    tp = TopicPartition(ORDER, 0)
    async with consumer(group_id=COMMITTED) as c:
        c.assign([tp, TopicPartition(TIME, 0)])
        await c.commit({tp: OffsetAndMetadata(7, "höhe 7")})
        equal((await c.committed(tp), await c.committed(TopicPartition(TIME, 0))), (7, None), "committed")
        await raised("OffsetMetadataTooLargeError", c.commit({tp: OffsetAndMetadata(7, "x" * 5000)}))


async def lag(admin):
    tp = TopicPartition(ORDER, 0)
    found = (await admin.list_consumer_group_offsets(COMMITTED))[tp]
    equal((found.offset, found.metadata), (7, "höhe 7"), "committed")
    async with consumer() as c:
        equal((await c.end_offsets([tp]))[tp] - found.offset, common.ORDERED - 7, "lag")


async def groups(admin):
    equal(COMMITTED in [g[0] for g in await admin.list_consumer_groups()], True, "listed")
    found = (await admin.describe_consumer_groups([COMMITTED]))[0].groups[0]
    equal((found[2], list(found[5])), ("Empty", []), "state, members")


async def configs(admin):
    resource = lambda change=None: ConfigResource(ConfigResourceType.TOPIC, TIME, change)

    async def found(*keys):
        answer = (await admin.describe_configs([resource()]))[0].resources[0]
        values = {entry[0]: entry[1] for entry in answer[4]}
        return [values[key] for key in keys]
    equal(await found("retention.ms", "cleanup.policy"), ["-1", "delete"], "retention.ms, cleanup.policy")
    change = {**common.NO_RETENTION, "max.message.bytes": "50000"}
    equal((await admin.alter_configs([resource(change)]))[0].resources[0][0], 0, "error code")
    equal(await found("retention.ms", "max.message.bytes"), ["-1", "50000"], "retention.ms, max.message.bytes")
    large = [Record(None, None, bytes(range(256)) * 300, [])]
    await raised("MessageSizeTooLargeError", produce_all(TIME, 0, large))
    await admin.alter_configs([resource(common.NO_RETENTION)])  # the old API: what is not named goes back to its default
    equal(await found("retention.ms", "max.message.bytes"), ["-1", "1048588"], "retention.ms, max.message.bytes")
    equal(await produce_all(TIME, 0, large), [len(RECORDS)], "offset")


async def create_partitions(admin):
    await admin.create_partitions({GROUP: NewPartitions(6)})

    async def grown():
        return len((await admin.describe_topics([GROUP]))[0]["partitions"]) == 6
    await until(lambda: "6 partitions", grown)
    equal(await produce_all(GROUP, 5, RECORDS[:1]), [0], "offset")
    await raised("InvalidPartitionsError", admin.create_partitions({GROUP: NewPartitions(5)}))


async def delete_records(admin):
    tp = TopicPartition(ORDER, 0)
    equal((await admin.delete_records({tp: RecordsToDelete(100)}))[tp], 100, "low watermark")
    await raised("OffsetOutOfRangeError", admin.delete_records({tp: RecordsToDelete(common.ORDERED + 1)}))
    return check_ordered([(o, r.value) for o, r in await read(ORDER, 0, 50)], 100)  # below the start: reset to earliest


async def compacted():
    # INVALID_RECORD is newer than the client.
    await raised("UnknownError", produce_all(COMPACT, 0, [Record(None, None, b"no key", [])]))
    equal(await produce_all(COMPACT, 0, [Record(None, b"k", b"v", [])]), [0], "offset")


async def holes():
    topic, end, left = common.holes()
    for start in common.holes_starts(end):
        got = await read(topic, 0, start, isolation_level="read_committed")
        common.check_holes(start, [(o, r.key, r.value) for o, r in got])
    return f"{len(left)} of {end} offsets"


async def placement(admin):
    topic = suite.name("placed")
    equal(await create(admin, topic, 12), 0, "error code")
    async with AIOKafkaProducer(**BASE) as p:
        await asyncio.gather(*[await p.send(topic, b"v", key=key) for key in common.placed()])


async def delete_topic(admin):
    equal([e[1] for e in (await admin.delete_topics([GONE])).topic_error_codes], [0], "error code")

    async def gone():
        return GONE not in await admin.list_topics()
    await until(lambda: "topic deleted", gone)
    equal([e[1] for e in (await admin.delete_topics([GONE])).topic_error_codes], [3], "UNKNOWN_TOPIC_OR_PARTITION")


async def main():
    admin = AIOKafkaAdminClient(**BASE)
    await admin.start()
    run = suite.run_async
    await run("create-topic", create_topics(admin))
    await run("metadata", metadata(admin))
    for name, *case in common.produce_cases():
        await run(name, produce(*case))
    suite.skip("record-of-nulls", "the client refuses to send it")
    await run("idempotent", idempotent())
    await run("small-fetches", small_fetches())
    await run("seek-timestamp", seek_timestamp())
    await run("transactions", transactions(admin))
    await run("transactions-offsets", transaction_offsets(admin))
    await run("transactions-fenced", transaction_fenced(admin))
    await run("group-range", group(admin, "group-range", RangePartitionAssignor))
    await run("group-roundrobin", group(admin, "group-roundrobin", RoundRobinPartitionAssignor))
    await run("group-sticky", group(admin, "group-sticky", StickyPartitionAssignor))
    await run("commit-metadata", commit_metadata())
    await run("lag", lag(admin))
    await run("groups", groups(admin))
    suite.skip("delete-group", "the client cannot")
    await run("configs", configs(admin))
    await run("create-partitions", create_partitions(admin))
    await run("delete-records", delete_records(admin))
    await run("compacted-needs-key", compacted())
    await run("compacted-holes", holes())
    await run("placement", placement(admin))
    await run("delete-topic", delete_topic(admin))
    await admin.close()

asyncio.run(main())
suite.done()
