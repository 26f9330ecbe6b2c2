import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.*;
import java.util.function.Consumer;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.internals.AppInfoParser;

/** Java kafka-clients against a broker. */
public class Clients {
    static final int ORDERED = 500;
    static final long WAIT = 30_000;
    static String bootstrap, prefix, holesFile;
    static int failed = 0;
    static Admin admin;
    static String PRODUCE, ORDER, TIME, GROUP, COMPACT, GONE, COMMITTED, TXN, SOURCE, SINK, FENCED;
    static List<Rec> RECORDS;

    record Rec(long timestamp, String key, String value, List<String> headers) {}

    interface Scenario { Object run() throws Exception; }

    // --- lines, records, checks ---

    static void run(String name, Scenario scenario) {
        long start = System.nanoTime();
        try {
            Object detail = scenario.run();
            System.out.printf("ok %s %s %.2fs%n", name, detail == null ? "" : detail, (System.nanoTime() - start) / 1e9);
        } catch (Throwable e) {
            failed++;
            String at = Arrays.stream(e.getStackTrace()).filter(f -> f.getClassName().matches("(Clients|Transactions).*"))
                .map(f -> f.getMethodName() + ":" + f.getLineNumber()).limit(2).collect(Collectors.joining(" "));
            System.out.println(("FAIL " + name + " " + e + " (at " + at + ")").replace('\n', ' '));
        }
    }

    static void equal(Object actual, Object expected, String what) {
        if (!Objects.equals(actual, expected)) {
            String a = String.valueOf(actual), e = String.valueOf(expected);
            throw new AssertionError(what + ": got " + a.substring(0, Math.min(300, a.length())) + ", expected "
                + e.substring(0, Math.min(300, e.length())));
        }
    }

    static void until(Supplier<String> what, Callable<Boolean> attempt) throws Exception {
        for (long end = System.currentTimeMillis() + WAIT; !attempt.call(); Thread.sleep(20))
            if (System.currentTimeMillis() > end) throw new AssertionError("no " + what.get() + " within " + WAIT + " ms");
    }

    static void raised(String error, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            equal(cause.getClass().getSimpleName(), error, "error (" + cause.getMessage() + ")");
            return;
        }
        throw new AssertionError("no error, expected " + error);
    }

    /** Bytes are held as ISO-8859-1 strings, so that records can be compared and printed. */
    static String text(byte[] bytes) { return bytes == null ? null : new String(bytes, StandardCharsets.ISO_8859_1); }

    static byte[] bytes(String text) { return text == null ? null : text.getBytes(StandardCharsets.ISO_8859_1); }

    static String unescape(String field) {
        if (field.equals("-")) return null;
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < field.length(); i++) {
            if (field.charAt(i) != '%') out.append(field.charAt(i));
            else { out.append((char) Integer.parseInt(field.substring(i + 1, i + 3), 16)); i += 2; }
        }
        return out.toString();
    }

    static Rec parse(String line) {
        String[] f = line.split("\t", -1);
        String value = unescape(f[2]);
        List<String> headers = new ArrayList<>();
        for (int i = 4; i < f.length; i++) {
            int at = f[i].indexOf('=');
            headers.add(unescape(f[i].substring(0, at)));
            headers.add(unescape(f[i].substring(at + 1)));
        }
        return new Rec(Long.parseLong(f[0]), unescape(f[1]), value == null ? null : value.repeat(Integer.parseInt(f[3])), headers);
    }

    static String checkRecords(List<Rec> got, List<Rec> expected) {
        for (int i = 0; i < Math.min(got.size(), expected.size()); i++) equal(got.get(i), expected.get(i), "record " + i);
        equal(got.size(), expected.size(), "number of records");
        return got.size() + " records";
    }

    static List<Rec> ordered(int first) {
        return IntStream.range(first, ORDERED).mapToObj(i -> new Rec(i + 1, null, "ordered " + i, List.of())).toList();
    }

    // --- producers and consumers ---

    static Properties props(Object... pairs) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("request.timeout.ms", "10000");
        p.put("default.api.timeout.ms", "20000");
        for (int i = 0; i < pairs.length; i += 2) p.put(pairs[i], pairs[i + 1]);
        return p;
    }

    static List<Long> produceAll(String topic, int partition, List<Rec> records, Object... conf) throws Exception {
        Properties p = props("linger.ms", "5", "delivery.timeout.ms", "20000");
        p.putAll(props(conf));
        List<Long> offsets = new ArrayList<>();
        try (var producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (Rec r : records) {
                var record = new ProducerRecord<>(topic, partition, r.timestamp, bytes(r.key), bytes(r.value));
                for (int i = 0; i < r.headers.size(); i += 2)
                    record.headers().add(new String(bytes(r.headers.get(i)), StandardCharsets.UTF_8), bytes(r.headers.get(i + 1)));
                sent.add(producer.send(record));
            }
            producer.flush();
            for (var f : sent) offsets.add(f.get().offset());
        }
        return offsets;
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... conf) {
        Properties p = props("auto.offset.reset", "earliest", "enable.auto.commit", "false", "fetch.max.wait.ms", "50");
        p.putAll(props(conf));
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** All records from `start` to the end; their offsets must follow each other from `first`. */
    static List<Rec> read(String topic, int partition, long start, long first, Object... conf) {
        List<Rec> got = new ArrayList<>();
        TopicPartition tp = new TopicPartition(topic, partition);
        try (var c = consumer(conf)) {
            c.assign(List.of(tp));
            long end = c.endOffsets(List.of(tp)).get(tp), giveUp = System.currentTimeMillis() + WAIT;
            c.seek(tp, start);
            while (c.position(tp) < end) {
                if (System.currentTimeMillis() > giveUp) throw new AssertionError("read only " + got.size() + " records");
                for (var r : c.poll(Duration.ofMillis(100))) {
                    equal(r.offset(), first + got.size(), "offset");
                    List<String> headers = new ArrayList<>();
                    for (Header h : r.headers()) {
                        headers.add(text(h.key().getBytes(StandardCharsets.UTF_8)));
                        headers.add(text(h.value()));
                    }
                    got.add(new Rec(r.timestamp(), text(r.key()), text(r.value()), headers));
                }
            }
        }
        return got;
    }

    static List<Long> range(int n) { return LongStream.range(0, n).boxed().toList(); }

    // --- scenarios ---

    static Void create(String name, int partitions, int replicas, Map<String, String> configs) throws Exception {
        return admin.createTopics(List.of(new NewTopic(name, partitions, (short) replicas).configs(configs))).all().get();
    }

    static Object createTopics() throws Exception {
        Map<String, String> keep = Map.of("retention.ms", "-1"); // the records' timestamps lie years back
        for (var t : Map.of(PRODUCE, 15, ORDER, 1, TIME, 1, GROUP, 4, GONE, 1).entrySet()) create(t.getKey(), t.getValue(), 1, keep);
        create(COMPACT, 1, 1, Map.of("cleanup.policy", "compact"));
        raised("TopicExistsException", () -> create(TIME, 1, 1, Map.of()));
        raised("InvalidTopicException", () -> create("not/a/name", 1, 1, Map.of()));
        raised("InvalidConfigurationException", () -> create(prefix + "x", 1, 1, Map.of("retention.ms", "soon")));
        raised("InvalidPartitionsException", () -> create(prefix + "x", 0, 1, Map.of()));
        raised("InvalidReplicationFactorException", () -> create(prefix + "x", 1, 9, Map.of()));
        admin.createTopics(List.of(new NewTopic(prefix + "valid", 3, (short) -1)), new CreateTopicsOptions().validateOnly(true)).all().get();
        equal(admin.listTopics().names().get().contains(prefix + "valid"), false, "topic after validate only");
        return null;
    }

    static Object metadata() throws Exception {
        var topic = admin.describeTopics(List.of(PRODUCE)).allTopicNames().get().get(PRODUCE);
        equal(topic.partitions().stream().map(TopicPartitionInfo::partition).toList(), IntStream.range(0, 15).boxed().toList(), "partitions");
        var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(topic.topicId()))).allTopicIds().get();
        equal(byId.get(topic.topicId()).name(), PRODUCE, "topic by id");
        until(() -> "leader of every partition", () -> {
            try { return end(PRODUCE, 14) == 0; } catch (ExecutionException e) { return false; }
        });
        raised("UnknownTopicOrPartitionException", () -> admin.describeTopics(List.of(prefix + "none")).allTopicNames().get());
        var cluster = admin.describeCluster();
        return "cluster " + cluster.clusterId().get() + ", nodes " + cluster.nodes().get() + ", topic id " + topic.topicId();
    }

    static long end(String topic, int partition) throws Exception {
        TopicPartition tp = new TopicPartition(topic, partition);
        return admin.listOffsets(Map.of(tp, OffsetSpec.latest())).partitionResult(tp).get().offset();
    }

    static Object produce(String codec, String acks, int partition) throws Exception {
        List<Long> offsets = produceAll(PRODUCE, partition, RECORDS, "compression.type", codec, "acks", acks, "enable.idempotence", "false");
        if (!acks.equals("0")) equal(offsets, range(RECORDS.size()), "offsets");
        until(() -> "all records", () -> end(PRODUCE, partition) >= RECORDS.size());
        return checkRecords(read(PRODUCE, partition, 0, 0), RECORDS);
    }

    static Object idempotent() throws Exception {
        equal(produceAll(ORDER, 0, ordered(0), "batch.size", "200", "linger.ms", "0"), range(ORDERED), "offsets");
        var producers = admin.describeProducers(List.of(new TopicPartition(ORDER, 0))).partitionResult(new TopicPartition(ORDER, 0)).get();
        equal(producers.activeProducers().stream().map(ProducerState::lastSequence).toList(), List.of(ORDERED - 1), "last sequences");
        return checkRecords(read(ORDER, 0, 0, 0), ordered(0));
    }

    static Object smallFetches() {
        for (int start : new int[] {0, 1, 11, 12, 24})
            checkRecords(read(PRODUCE, 4, start, start, "max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000"),
                RECORDS.subList(start, RECORDS.size()));
        return null;
    }

    static Integer firstAt(long timestamp) {
        for (int i = 0; i < RECORDS.size(); i++) if (RECORDS.get(i).timestamp >= timestamp) return i;
        return null;
    }

    static Object seekTimestamp() throws Exception {
        produceAll(TIME, 0, RECORDS.subList(0, 13));
        produceAll(TIME, 0, RECORDS.subList(13, RECORDS.size()));
        TopicPartition tp = new TopicPartition(TIME, 0);
        try (var c = consumer()) {
            for (Rec r : RECORDS) for (long t = r.timestamp - 1; t <= r.timestamp + 1; t++) {
                var found = c.offsetsForTimes(Map.of(tp, t)).get(tp);
                equal(found == null ? null : (Integer) (int) found.offset(), firstAt(t), "offset for " + t);
            }
            equal(c.beginningOffsets(List.of(tp)).get(tp), 0L, "beginning");
        }
        var newest = admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp).get();
        equal(newest.offset(), RECORDS.size() - 1L, "offset of the largest timestamp");
        int start = firstAt(RECORDS.get(RECORDS.size() - 1).timestamp);
        return checkRecords(read(TIME, 0, start, start), RECORDS.subList(start, RECORDS.size()));
    }

    /** A group member that commits what it read and keeps what it owns up to date. */
    static class Member implements ConsumerRebalanceListener {
        final Set<Integer> owned = ConcurrentHashMap.newKeySet();
        final List<String> got = new CopyOnWriteArrayList<>();
        volatile boolean stopping;
        final CompletableFuture<Void> done;

        Member(Object... conf) { done = CompletableFuture.runAsync(() -> poll(conf)); }

        void poll(Object... conf) {
            try (var c = consumer(conf)) {
                c.subscribe(List.of(GROUP), this);
                while (!stopping) {
                    var polled = c.poll(Duration.ofMillis(50));
                    for (var r : polled) got.add(text(r.value()));
                    if (!polled.isEmpty()) c.commitSync();
                }
            }
        }

        public void onPartitionsAssigned(Collection<TopicPartition> added) { for (var tp : added) owned.add(tp.partition()); }

        public void onPartitionsRevoked(Collection<TopicPartition> gone) { for (var tp : gone) owned.remove(tp.partition()); }
    }

    static Object group(String name, String assignor, boolean fixed) throws Exception {
        String id = prefix + name;
        List<String> sent = new ArrayList<>();
        List<Member> members = new ArrayList<>();
        Consumer<Integer> join = n -> members.add(new Member(Stream.concat(
            Stream.of("group.id", id, "session.timeout.ms", "10000", "heartbeat.interval.ms", "200", "partition.assignment.strategy", assignor),
            fixed ? Stream.of("group.instance.id", "instance-" + n) : Stream.of()).toArray()));
        Callable<Void> produced = () -> {
            try (var p = new KafkaProducer<>(props(), new StringSerializer(), new StringSerializer())) {
                for (int i = 0; i < 40; i++) {
                    sent.add(name + " " + sent.size());
                    p.send(new ProducerRecord<>(GROUP, i % 4, null, sent.get(sent.size() - 1)));
                }
            }
            return null;
        };
        Consumer<List<Integer>> settled = counts -> {
            try {
                until(() -> "assignment " + counts + " with " + sent.size() + " records read once (owned "
                        + members.stream().map(m -> m.owned).toList() + ", read " + members.stream().map(m -> m.got.size()).toList() + ")", () -> {
                    for (var m : members) if (m.done.isDone()) m.done.get();
                    var live = members.stream().filter(m -> !m.stopping).toList();
                    return live.stream().map(m -> m.owned.size()).sorted().toList().equals(counts)
                        && live.stream().flatMap(m -> m.owned.stream()).distinct().count() == 4
                        && members.stream().flatMap(m -> m.got.stream()).filter(v -> v.startsWith(name + " ")).sorted().toList()
                            .equals(sent.stream().sorted().toList());
                });
            } catch (Exception e) { throw new RuntimeException(e); }
        };
        try {
            produced.call();
            join.accept(0);
            settled.accept(List.of(4));
            join.accept(1);
            settled.accept(List.of(2, 2));
            produced.call();
            settled.accept(List.of(2, 2));
            var found = admin.describeConsumerGroups(List.of(id)).all().get().get(id);
            equal(found.groupState(), GroupState.STABLE, "state");
            equal(found.members().stream().flatMap(m -> m.assignment().topicPartitions().stream()).map(TopicPartition::partition).sorted().toList(),
                List.of(0, 1, 2, 3), "assignment");
            members.get(0).stopping = true;
            if (fixed) { // a static member that comes back in time takes its partitions without a rebalance
                members.get(0).done.get();
                join.accept(0);
                settled.accept(List.of(2, 2));
                raised("GroupNotEmptyException", () -> admin.deleteConsumerGroups(List.of(id)).all().get());
            } else settled.accept(List.of(4));
            produced.call();
            settled.accept(fixed ? List.of(2, 2) : List.of(4));
            return sent.size() + " records once, " + found.partitionAssignor();
        } finally {
            members.forEach(m -> m.stopping = true);
            for (var m : members) m.done.handle((ok, error) -> null).get(WAIT, TimeUnit.MILLISECONDS);
        }
    }

    static OffsetAndMetadata committed() throws Exception {
        return admin.listConsumerGroupOffsets(COMMITTED).partitionsToOffsetAndMetadata().get().get(new TopicPartition(ORDER, 0));
    }

    static Object commitMetadata() throws Exception {
        TopicPartition tp = new TopicPartition(ORDER, 0), never = new TopicPartition(TIME, 0);
        try (var c = consumer("group.id", COMMITTED)) {
            var committed = new OffsetAndMetadata(7, Optional.of(0), "höhe 7");
            c.commitSync(Map.of(tp, committed));
            var found = c.committed(Set.of(tp, never));
            equal(Arrays.asList(found.get(tp), found.get(never)), Arrays.asList(committed, null), "committed");
            raised("OffsetMetadataTooLarge", () -> { c.commitSync(Map.of(tp, new OffsetAndMetadata(7, "x".repeat(5000)))); return null; });
        }
        return null;
    }

    static Object lag() throws Exception {
        equal(end(ORDER, 0) - committed().offset(), ORDERED - 7L, "lag");
        return null;
    }

    static Object groups() throws Exception {
        var listed = admin.listGroups().valid().get().stream().collect(Collectors.toMap(GroupListing::groupId, g -> g));
        equal(listed.get(COMMITTED).groupState(), Optional.of(GroupState.EMPTY), "state");
        equal(listed.get(prefix + "group-range").type(), Optional.of(GroupType.CLASSIC), "type");
        equal(admin.describeConsumerGroups(List.of(COMMITTED)).all().get().get(COMMITTED).members().size(), 0, "members");
        raised("GroupIdNotFoundException", () -> admin.describeConsumerGroups(List.of(prefix + "none")).all().get());
        TopicPartition tp = new TopicPartition(ORDER, 0);
        admin.alterConsumerGroupOffsets(COMMITTED, Map.of(tp, new OffsetAndMetadata(3))).all().get();
        equal(committed().offset(), 3L, "altered offset");
        admin.deleteConsumerGroupOffsets(COMMITTED, Set.of(tp)).all().get();
        equal(committed(), null, "deleted offset");
        return null;
    }

    static Object deleteGroup() throws Exception {
        String id = prefix + "group-range";
        admin.deleteConsumerGroups(List.of(id)).all().get();
        equal(admin.listConsumerGroupOffsets(id).partitionsToOffsetAndMetadata().get(), Map.of(), "offsets of a deleted group");
        raised("GroupIdNotFoundException", () -> admin.deleteConsumerGroups(List.of(id)).all().get());
        return null;
    }

    static Object configs() throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, TIME);
        Callable<Config> found = () -> admin.describeConfigs(List.of(topic)).all().get().get(topic);
        BiFunction<String, AlterConfigOp.OpType, Callable<?>> alter = (value, op) -> () -> admin.incrementalAlterConfigs(
            Map.of(topic, List.of(new AlterConfigOp(new ConfigEntry("max.message.bytes", value), op)))).all().get();
        equal(found.call().get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of retention.ms");
        equal(found.call().get("cleanup.policy").isDefault(), true, "cleanup.policy is default");
        alter.apply("50000", AlterConfigOp.OpType.SET).call();
        equal(found.call().get("max.message.bytes").value(), "50000", "max.message.bytes");
        List<Rec> large = List.of(new Rec(1, null, "0123456789".repeat(7500), List.of()));
        raised("RecordTooLargeException", () -> produceAll(TIME, 0, large));
        alter.apply("", AlterConfigOp.OpType.DELETE).call();
        equal(produceAll(TIME, 0, large), List.of((long) RECORDS.size()), "offset");
        raised("InvalidConfigurationException", alter.apply("many", AlterConfigOp.OpType.SET));
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, admin.describeCluster().controller().get().idString());
        return found.call().entries().size() + " of topic, " + admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().size() + " of broker";
    }

    static Object createPartitions() throws Exception {
        admin.createPartitions(Map.of(GROUP, NewPartitions.increaseTo(6))).all().get();
        until(() -> "6 partitions", () -> admin.describeTopics(List.of(GROUP)).allTopicNames().get().get(GROUP).partitions().size() == 6);
        equal(produceAll(GROUP, 5, RECORDS.subList(0, 1)), List.of(0L), "offset");
        raised("InvalidPartitionsException", () -> admin.createPartitions(Map.of(GROUP, NewPartitions.increaseTo(5))).all().get());
        return null;
    }

    static Object deleteRecords() throws Exception {
        TopicPartition tp = new TopicPartition(ORDER, 0);
        Function<Long, Callable<DeletedRecords>> delete = offset -> () ->
            admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(offset))).lowWatermarks().get(tp).get();
        equal(delete.apply(100L).call().lowWatermark(), 100L, "low watermark");
        raised("OffsetOutOfRangeException", delete.apply(ORDERED + 1L));
        return checkRecords(read(ORDER, 0, 50, 100), ordered(100)); // below the start: reset to earliest
    }

    static Object logDirs() throws Exception {
        int node = admin.describeCluster().controller().get().id();
        long size = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).values().stream()
            .flatMap(d -> d.replicaInfos().entrySet().stream()).filter(e -> e.getKey().topic().equals(ORDER)).mapToLong(e -> e.getValue().size()).sum();
        if (size < ORDERED * 10) throw new AssertionError("size of " + ORDER + ": " + size);
        return size + " bytes";
    }

    static Object compacted() throws Exception {
        raised("InvalidRecordException", () -> produceAll(COMPACT, 0, List.of(new Rec(1, null, "no key", List.of()))));
        equal(produceAll(COMPACT, 0, List.of(new Rec(1, "k", "v", List.of()))), List.of(0L), "offset");
        return null;
    }

    /** The compacted topic of holes.py: what is left in it, from several offsets on, of which most are gone. */
    static Object holes() throws Exception {
        List<String[]> lines = Files.readAllLines(Path.of(holesFile)).stream().map(l -> l.split("\t", -1)).toList();
        String topic = lines.get(0)[0];
        long end = Long.parseLong(lines.get(0)[1]);
        TopicPartition tp = new TopicPartition(topic, 0);
        for (long from = 0; from < end; from += 23) {
            long start = from, giveUp = System.currentTimeMillis() + WAIT;
            List<String> left = lines.stream().skip(1).filter(l -> Long.parseLong(l[0]) >= start)
                .map(l -> l[0] + " " + unescape(l[1]) + " " + unescape(l[2])).toList(), got = new ArrayList<>();
            try (var c = consumer("isolation.level", "read_committed")) {
                c.assign(List.of(tp));
                c.seek(tp, start);
                while (c.position(tp) < end) {
                    if (System.currentTimeMillis() > giveUp) throw new AssertionError("read only " + got.size() + " records");
                    for (var r : c.poll(Duration.ofMillis(100))) got.add(r.offset() + " " + text(r.key()) + " " + text(r.value()));
                }
            }
            equal(got, left, "records from " + start);
        }
        return lines.size() - 1 + " of " + end + " offsets";
    }

    static Object deleteTopic() throws Exception {
        admin.deleteTopics(List.of(GONE)).all().get();
        until(() -> "topic deleted", () -> !admin.listTopics().names().get().contains(GONE));
        raised("UnknownTopicOrPartitionException", () -> admin.deleteTopics(List.of(GONE)).all().get());
        return null;
    }

    /** Keys that the client places by itself; run.py looks where they are. */
    static Object placement() throws Exception {
        create(prefix + "placed", 12, 1, Map.of());
        try (var producer = new KafkaProducer<>(props(), new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < 330; i++)
                sent.add(producer.send(new ProducerRecord<>(prefix + "placed", i < 300 ? bytes("key-" + i) : null, bytes("v"))));
            producer.flush();
            for (var f : sent) f.get();
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        holesFile = args[2];
        prefix = "java-" + UUID.randomUUID().toString().substring(0, 8) + "-";
        PRODUCE = prefix + "produce"; ORDER = prefix + "order"; TIME = prefix + "time"; GROUP = prefix + "group";
        COMPACT = prefix + "compact"; GONE = prefix + "gone"; COMMITTED = prefix + "committed";
        TXN = prefix + "transactions"; SOURCE = prefix + "source"; SINK = prefix + "sink"; FENCED = prefix + "fenced";
        RECORDS = Files.readAllLines(Path.of(args[1])).stream().filter(l -> !l.startsWith("#")).map(Clients::parse).toList();
        System.out.println("# java kafka-clients " + AppInfoParser.getVersion() + " on " + bootstrap + ", names start with " + prefix);
        admin = Admin.create(props());
        run("create-topic", Clients::createTopics);
        run("metadata", Clients::metadata);
        String[] codecs = {"none", "gzip", "snappy", "lz4", "zstd"}, acks = {"0", "1", "all"};
        for (int c = 0; c < codecs.length; c++) for (int a = 0; a < acks.length; a++) {
            int partition = 3 * c + a;
            String codec = codecs[c], ack = acks[a];
            run("produce-" + codec + "-" + ack, () -> produce(codec, ack, partition));
        }
        run("idempotent", Clients::idempotent);
        run("small-fetches", Clients::smallFetches);
        run("seek-timestamp", Clients::seekTimestamp);
        String assignors = "org.apache.kafka.clients.consumer.";
        run("transactions", Transactions::transactions);
        run("transactions-offsets", Transactions::transactionOffsets);
        run("transactions-fenced", Transactions::transactionFenced);
        run("group-range", () -> group("group-range", assignors + "RangeAssignor", false));
        run("group-roundrobin", () -> group("group-roundrobin", assignors + "RoundRobinAssignor", false));
        run("group-sticky", () -> group("group-sticky", assignors + "StickyAssignor", false));
        run("group-cooperative", () -> group("group-cooperative", assignors + "CooperativeStickyAssignor", false));
        run("group-static", () -> group("group-static", assignors + "RangeAssignor", true));
        run("commit-metadata", Clients::commitMetadata);
        run("lag", Clients::lag);
        run("groups", Clients::groups);
        run("delete-group", Clients::deleteGroup);
        run("configs", Clients::configs);
        run("create-partitions", Clients::createPartitions);
        run("delete-records", Clients::deleteRecords);
        run("log-dirs", Clients::logDirs);
        run("compacted-needs-key", Clients::compacted);
        run("compacted-holes", Clients::holes);
        run("placement", Clients::placement);
        if (System.getenv("PELTON_ROUTED") != null) run("routed", Transactions::routed);
        run("delete-topic", Clients::deleteTopic);
        admin.close();
        System.exit(failed == 0 ? 0 : 1);
    }
}
