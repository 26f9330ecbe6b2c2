import java.time.Duration;
import java.util.*;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringSerializer;

/** Transactions of Java kafka-clients; {@link Clients} runs them. */
class Transactions extends Clients {
    /** The transactions of a producer: committed or aborted. */
    static final List<Boolean> COMMITS = List.of(true, false, true, true, false, true);

    static List<String> inTransaction(int number, int partition) {
        return IntStream.range(0, 5).mapToObj(i -> "transaction " + number + " partition " + partition + " record " + i).toList();
    }

    /** Values of `partition` that are visible after so many transactions. */
    static List<String> transacted(int partition, String isolation, int transactions) {
        return IntStream.range(0, transactions).filter(n -> COMMITS.get(n) || isolation.equals("read_uncommitted")).boxed()
            .flatMap(n -> inTransaction(n, partition).stream()).toList();
    }

    static List<String> toTransform(int partition) { return IntStream.range(0, 10).mapToObj(i -> "input " + partition + " " + i).toList(); }

    static KafkaProducer<String, String> transactional(String name) {
        var producer = new KafkaProducer<>(props("transactional.id", prefix + name, "linger.ms", "5", "delivery.timeout.ms", "20000"),
            new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    /** A topic that places records by itself, and writes of a transactional and of an idempotent producer. run.py looks at it. */
    static Object routed() throws Exception {
        String topic = prefix + "routed";
        create(topic, 12, 1, Map.of("pelton.partitioner", "fnv1a"));
        try (var producer = transactional("routed")) {
            for (int number = 0; number < COMMITS.size(); number++) {
                producer.beginTransaction();
                for (int i = 0; i < 50; i++) producer.send(new ProducerRecord<>(topic, "key-" + i, "" + number));
                producer.flush();
                if (COMMITS.get(number)) producer.commitTransaction(); else producer.abortTransaction();
            }
        }
        try (var producer = new KafkaProducer<>(props(), new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < 50; i++) producer.send(new ProducerRecord<>(topic, "key-" + i, "last"));
            producer.flush();
        }
        return null;
    }

    static void createTwo(String... names) throws Exception {
        admin.createTopics(Arrays.stream(names).map(name -> new NewTopic(name, 2, (short) 1)).toList()).all().get();
    }

    static List<String> values(String topic, int partition, String isolation) {
        List<String> got = new ArrayList<>();
        TopicPartition tp = new TopicPartition(topic, partition);
        try (var c = consumer("isolation.level", isolation)) {
            c.assign(List.of(tp));
            c.seek(tp, 0);
            long end = c.endOffsets(List.of(tp)).get(tp), giveUp = System.currentTimeMillis() + WAIT;
            while (c.position(tp) < end) {
                if (System.currentTimeMillis() > giveUp) throw new AssertionError("read only " + got);
                for (var r : c.poll(Duration.ofMillis(100))) got.add(text(r.value()));
            }
        }
        return got;
    }

    /** Like `equal`, but waits: Kafka answers a commit before it has written all markers. */
    static <T> void eventually(Callable<T> attempt, T expected, String what) throws Exception {
        T actual = attempt.call();
        for (long end = System.currentTimeMillis() + WAIT; !actual.equals(expected) && System.currentTimeMillis() < end; Thread.sleep(20))
            actual = attempt.call();
        equal(actual, expected, what);
    }

    static TransactionDescription described(String id) throws Exception {
        return admin.describeTransactions(List.of(id)).description(id).get();
    }

    static Object transactions() throws Exception {
        createTwo(TXN);
        String id = prefix + "transactions";
        var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
        equal(features.get("transaction.version").maxVersionLevel(), (short) 2, "transaction.version");
        try (var producer = transactional("transactions")) {
            for (int number = 0; number < COMMITS.size(); number++) {
                producer.beginTransaction();
                for (int p = 0; p < 2; p++)
                    for (String value : inTransaction(number, p)) producer.send(new ProducerRecord<>(TXN, p, null, value));
                producer.flush();
                equal(values(TXN, 0, "read_committed"), transacted(0, "read_committed", number), "before the transaction ends");
                var both = Set.of(new TopicPartition(TXN, 0), new TopicPartition(TXN, 1));
                equal(described(id).topicPartitions(), both, "partitions of the transaction");
                if (COMMITS.get(number)) producer.commitTransaction();
                else producer.abortTransaction();
            }
        }
        for (String isolation : List.of("read_committed", "read_uncommitted")) for (int p = 0; p < 2; p++) {
            int partition = p;
            eventually(() -> values(TXN, partition, isolation), transacted(p, isolation, COMMITS.size()), isolation + " of partition " + p);
        }
        eventually(() -> described(id).state(), TransactionState.COMPLETE_COMMIT, "state");
        equal(admin.listTransactions().all().get().stream().anyMatch(t -> t.transactionalId().equals(id)), true, "listed");
        // The newer protocol (transaction.version 2, EndTxn v5) gives every transaction an epoch of its own.
        equal(described(id).producerEpoch(), COMMITS.size(), "producer epoch");
        return COMMITS.size() + " transactions";
    }

    static long sum(Map<TopicPartition, OffsetAndMetadata> committed) {
        return committed.values().stream().filter(Objects::nonNull).mapToLong(OffsetAndMetadata::offset).sum();
    }

    /** Consume, transform, produce: seven records a transaction, of which the second is aborted and repeated. */
    static Object transactionOffsets() throws Exception {
        createTwo(SOURCE, SINK);
        for (int p = 0; p < 2; p++) produceAll(SOURCE, p, toTransform(p).stream().map(v -> new Rec(1, null, v, List.of())).toList());
        Set<TopicPartition> partitions = Set.of(new TopicPartition(SOURCE, 0), new TopicPartition(SOURCE, 1));
        int done = 0, aborted = 0;
        try (var c = consumer("group.id", prefix + "transform", "isolation.level", "read_committed", "max.poll.records", "7");
             var producer = transactional("transform")) {
            c.subscribe(List.of(SOURCE));
            for (long giveUp = System.currentTimeMillis() + WAIT; done < 20; ) {
                if (System.currentTimeMillis() > giveUp) throw new AssertionError("transformed only " + done + " records");
                var polled = c.poll(Duration.ofMillis(1000));
                if (polled.isEmpty()) continue;
                producer.beginTransaction();
                for (var r : polled) producer.send(new ProducerRecord<>(SINK, r.partition(), null, text(r.value()).toUpperCase()));
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (var tp : polled.partitions()) offsets.put(tp, new OffsetAndMetadata(c.position(tp)));
                producer.sendOffsetsToTransaction(offsets, c.groupMetadata());
                producer.flush();
                if (done > 0 && aborted == 0) {
                    producer.abortTransaction();
                    aborted = polled.count();
                    for (var tp : polled.partitions()) c.seek(tp, polled.records(tp).get(0).offset());
                } else {
                    producer.commitTransaction();
                    done += polled.count();
                }
                eventually(() -> sum(c.committed(partitions)), (long) done, "sum of the committed offsets");
            }
        }
        List<String> all = new ArrayList<>(), once = new ArrayList<>();
        for (int p = 0; p < 2; p++) {
            int partition = p;
            List<String> wanted = toTransform(p).stream().map(String::toUpperCase).toList();
            eventually(() -> values(SINK, partition, "read_committed"), wanted, "read_committed of partition " + p);
            all.addAll(values(SINK, p, "read_uncommitted"));
            once.addAll(wanted);
        }
        equal(all.size(), done + aborted, "records read uncommitted");
        equal(new HashSet<>(all), new HashSet<>(once), "read uncommitted");
        return done + " records once, " + aborted + " of them aborted before";
    }

    static Object transactionFenced() throws Exception {
        createTwo(FENCED);
        try (var first = transactional("fenced")) {
            first.beginTransaction();
            first.send(new ProducerRecord<>(FENCED, 0, null, "first")).get();
            try (var second = transactional("fenced")) {
                raised("ProducerFencedException", () -> { first.commitTransaction(); return null; });
                second.beginTransaction();
                second.send(new ProducerRecord<>(FENCED, 0, null, "second"));
                second.commitTransaction();
            }
        }
        eventually(() -> values(FENCED, 0, "read_committed"), List.of("second"), "read_committed");
        equal(values(FENCED, 0, "read_uncommitted"), List.of("first", "second"), "read_uncommitted");
        return null;
    }
}
