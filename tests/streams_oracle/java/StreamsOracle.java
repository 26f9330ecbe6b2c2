// Kafka Streams as a program that others ask: a case a line on stdin, what came out a line on stdout.
//
//   {"nodes": [{"op": "stream", "topic": "a"}, {"op": "map", "in": 0}, ..], "inputs": [["a", key, value, time], ..]}
//   [[[key, value, time], ..], ..]      for each input what came out of the last node, or {"error": ".."}
//
// A node names the nodes that it reads by their places. Keys and values are strings; the functions are those of Values.
// A windowed key leaves as key@start@end. What each node does is in `Case.node`.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.function.Function;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.state.*;
import org.apache.kafka.streams.test.TestRecord;

public class StreamsOracle {
    static final ObjectMapper JSON = new ObjectMapper();

    /** The argument is a directory for state. */
    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        // What libraries print is no answer.
        System.setOut(System.err);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            String answer;
            try {
                answer = new Case(JSON.readTree(line), args[0]).run().toString();
            } catch (Exception e) {
                answer = JSON.createObjectNode().put("error", e.toString()).toString();
            }
            out.println(answer);
            out.flush();
        }
    }
}

/** One topology with its inputs. */
class Case {
    final JsonNode spec;
    final StreamsBuilder builder = new StreamsBuilder();
    final List<Object> nodes = new ArrayList<>();
    final String directory;
    int stores = 0;

    Case(JsonNode spec, String directory) {
        this.spec = spec;
        this.directory = directory;
    }

    ArrayNode run() {
        for (JsonNode node : spec.get("nodes")) nodes.add(node(node));
        stream(nodes.size() - 1).to("out", Produced.with(Serdes.String(), Serdes.String()));
        Properties config = new Properties();
        config.put("application.id", "oracle");
        config.put("state.dir", directory);
        config.put("bootstrap.servers", "none:1");
        config.put("default.key.serde", Serdes.StringSerde.class);
        config.put("default.value.serde", Serdes.StringSerde.class);
        config.put("dsl.store.suppliers.class", BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        // caches.
        config.put("statestore.cache.max.bytes", 0);
        // join-throttle: results of what closes come with the record that closes it.
        config.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        config.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        ArrayNode outputs = StreamsOracle.JSON.createArrayNode();
        try (TopologyTestDriver driver = new TopologyTestDriver(builder.build(), config, Instant.ofEpochMilli(0))) {
            Map<String, TestInputTopic<String, String>> topics = new HashMap<>();
            TestOutputTopic<String, String> out =
                driver.createOutputTopic("out", new StringDeserializer(), new StringDeserializer());
            Function<String, TestInputTopic<String, String>> topicOf =
                topic -> driver.createInputTopic(topic, new StringSerializer(), new StringSerializer());
            for (JsonNode input : spec.get("inputs")) {
                topics.computeIfAbsent(input.get(0).asText(), topicOf)
                    .pipeInput(text(input.get(1)), text(input.get(2)), input.get(3).asLong());
                ArrayNode seen = outputs.addArray();
                for (TestRecord<String, String> record : out.readRecordsToList()) {
                    seen.addArray().add(record.key()).add(record.value()).add(record.timestamp());
                }
            }
        }
        return outputs;
    }

    static String text(JsonNode node) { return node.isNull() ? null : node.asText(); }

    @SuppressWarnings("unchecked")
    KStream<String, String> stream(int place) {
        Object node = nodes.get(place);
        if (!(node instanceof KTable)) return (KStream<String, String>) node;
        return ((KTable<String, String>) node).toStream().processValues(Differences.AbsentTombstones::new);
    }

    /** null-value: rows without a value are aggregated in windows. */
    KStream<String, String> present(int place) { return stream(place).filter((k, v) -> v != null); }

    /** join-null-time: rows without key or value are not joined, but count for the time of a join. */
    KStream<String, String> complete(int place) { return stream(place).filter((k, v) -> k != null && v != null); }

    @SuppressWarnings("unchecked")
    KTable<String, String> table(int place) { return (KTable<String, String>) nodes.get(place); }

    /** absent-tombstone: tables that are joined send their results again for a row that deletes what is not there. */
    KTable<String, String> changing(int place) { return stream(place).toTable(kept()); }

    Materialized<String, Long, KeyValueStore<Bytes, byte[]>> numbers() {
        return Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("store" + stores++)
            .withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()).withCachingDisabled();
    }

    /** A store whose every update goes on. */
    Materialized<String, String, KeyValueStore<Bytes, byte[]>> kept() {
        return Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("store" + stores++)
            .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()).withCachingDisabled();
    }

    <S extends StateStore> Materialized<String, String, S> keptWindows(JsonNode node) {
        Materialized<String, String, S> kept = Materialized.<String, String, S>as("store" + stores++)
            .withKeySerde(Serdes.String()).withValueSerde(Serdes.String());
        if (node.has("retention")) kept = kept.withRetention(ms(node, "retention"));
        return kept.withCachingDisabled();
    }

    static Duration ms(JsonNode node, String field) { return Duration.ofMillis(node.get(field).asLong()); }

    Object node(JsonNode node) {
        int in = node.path("in").asInt(), with = node.path("with").asInt();
        String op = node.get("op").asText();
        switch (op) {
            case "stream": return builder.stream(node.get("topic").asText());
            case "table": return builder.table(node.get("topic").asText(), kept());
            case "global": return builder.globalTable(node.get("topic").asText(), kept());
            case "versioned": {
                VersionedBytesStoreSupplier store =
                    Stores.persistentVersionedKeyValueStore("store" + stores++, ms(node, "history"));
                return builder.table(node.get("topic").asText(), Consumed.with(Serdes.String(), Serdes.String()),
                    Materialized.<String, String>as(store));
            }
            case "filter": return stream(in).filter((k, v) -> Values.passes(v));
            case "filter_table": return table(in).filter((k, v) -> Values.passes(v));
            case "map": return stream(in).mapValues(v -> Values.mapped(v));
            case "map_table": return table(in).mapValues(v -> Values.mapped(v));
            case "flat": return stream(in).flatMapValues(
                v -> Values.isEven(v) ? List.of(v, Values.mapped(v)) : Collections.singletonList(v));
            case "key": return stream(in).selectKey((k, v) -> Values.key(v));
            case "merge": return stream(in).merge(stream(with));
            case "to_table": return stream(in).toTable(kept());
            case "to_stream": return stream(in);
            case "aggregate": return aggregate(node.get("function").asText(), stream(in).groupByKey());
            case "group": return group(node.get("function").asText(), table(in));
            case "windows": return windows(node, in);
            case "sliding": return sliding(node, in);
            case "sessions": return sessions(node, in);
            default: return join(op, node, in, with);
        }
    }

    Object join(String op, JsonNode node, int in, int with) {
        String kind = node.get("kind").asText();
        ValueJoiner<String, String, String> joiner = Values::joined;
        boolean isLeft = kind.equals("left");
        switch (op) {
            case "join_streams": return joinStreams(node, in, with, kind);
            case "join_table": {
                if (!isLeft) return stream(in).join(table(with), joiner, joined(node));
                // versioned-null-key: a left join that lets rows wait fails with a row without a key.
                KStream<String, String> rows = node.has("grace") ? stream(in).filter((k, v) -> k != null) : stream(in);
                return rows.leftJoin(table(with), joiner, joined(node));
            }
            case "join_global": {
                KeyValueMapper<String, String, String> by = (k, v) -> Values.key(v);
                if (!isLeft) return stream(in).join(global(with), by, joiner);
                return stream(in).leftJoin(global(with), by, joiner);
            }
            case "join_tables": {
                KTable<String, String> left = changing(in), right = changing(with);
                switch (kind) {
                    case "inner": return left.join(right, joiner, kept());
                    case "left": return left.leftJoin(right, joiner, kept());
                    default: return left.outerJoin(right, joiner, kept());
                }
            }
            case "join_foreign": {
                Function<String, String> by = Values::key;
                KTable<String, String> left = changing(in), right = changing(with);
                return isLeft ? left.leftJoin(right, by, joiner, kept()) : left.join(right, by, joiner, kept());
            }
            default: throw new IllegalArgumentException(node.toString());
        }
    }

    @SuppressWarnings("unchecked")
    GlobalKTable<String, String> global(int place) { return (GlobalKTable<String, String>) nodes.get(place); }

    Joined<String, String, String> joined(JsonNode node) {
        Joined<String, String, String> joined = Joined.with(Serdes.String(), Serdes.String(), Serdes.String());
        return node.has("grace") ? joined.withGracePeriod(ms(node, "grace")) : joined;
    }

    /** aggregate-first: of a new key, what the initializer makes is said to have been there. So it makes nothing. */
    KTable<String, String> aggregate(String function, KGroupedStream<String, String> grouped) {
        switch (function) {
            case "count": return numbers(grouped, (k, v, s) -> s == null ? 1 : s + 1);
            case "sum": return numbers(grouped, (k, v, s) -> (s == null ? 0 : s) + Values.of(v).n);
            case "max": return numbers(grouped, (k, v, s) -> Math.max(s == null ? 0 : s, Values.of(v).n));
            case "reduce": return grouped.reduce(Values::folded, kept());
            default: return grouped.aggregate(() -> null, (k, v, s) -> Values.folded(s, v), kept());
        }
    }

    KTable<String, String> numbers(KGroupedStream<String, String> grouped, Aggregator<String, String, Long> add) {
        return grouped.aggregate(() -> null, add, numbers()).mapValues(n -> Values.number(n));
    }

    /** The rows of a table by their f. A group without rows is gone: the state begins with how many there are. */
    KTable<String, String> group(String function, KTable<String, String> table) {
        KTable<String, String> states = table.groupBy((k, v) -> KeyValue.pair(Values.key(v), v)).aggregate(
            () -> "0|",
            (k, v, s) -> grouped(function, v, s, 1),
            (k, v, s) -> grouped(function, v, s, -1),
            kept());
        return states.mapValues(s -> result(function, s));
    }

    static String grouped(String function, String value, String state, int sign) {
        int bar = state.indexOf('|'), rows = Integer.parseInt(state.substring(0, bar)) + sign;
        String before = rows == 1 && sign == 1 ? null : state.substring(bar + 1);
        if (rows == 0) return null;
        String now = before;
        if (function.equals("rows")) now = Values.summed(before, value, sign);
        // The numbers of all rows, one after the other.
        if (function.equals("sum") || function.equals("max")) {
            List<String> numbers = new ArrayList<>(before == null ? List.of() : List.of(before.split(",")));
            String number = Integer.toString(Values.of(value).n);
            if (sign == 1) numbers.add(number);
            else numbers.remove(number);
            now = String.join(",", numbers);
        }
        return rows + "|" + now;
    }

    static String result(String function, String state) {
        int bar = state.indexOf('|');
        String rest = state.substring(bar + 1);
        switch (function) {
            case "count": return Values.number(Long.parseLong(state.substring(0, bar)));
            case "sum": return Values.number(Arrays.stream(rest.split(",")).mapToLong(Long::parseLong).sum());
            case "max": return Values.number(
                Arrays.stream(rest.split(",")).mapToLong(Long::parseLong).max().getAsLong());
            default: return rest;
        }
    }

    static boolean isClosedBy(String how, JsonNode node) { return node.path("close").asText().equals(how); }

    static EmitStrategy strategy(JsonNode node) {
        return isClosedBy("strategy", node) ? EmitStrategy.onWindowClose() : EmitStrategy.onWindowUpdate();
    }

    /** The results of windows as a stream; those that are held back until windows close come then. */
    static KStream<String, String> results(JsonNode node, KTable<Windowed<String>, String> table) {
        if (isClosedBy("suppress", node)) {
            table = table.suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()));
        }
        return table.toStream((k, v) -> k.key() + "@" + k.window().start() + "@" + k.window().end());
    }

    KStream<String, String> windows(JsonNode node, int in) {
        TimeWindows windows = TimeWindows.ofSizeAndGrace(ms(node, "size"), ms(node, "grace"))
            .advanceBy(ms(node, "advance"));
        Materialized<String, String, WindowStore<Bytes, byte[]>> kept = keptWindows(node);
        return results(node, present(in).groupByKey().windowedBy(windows).emitStrategy(strategy(node))
            .aggregate(() -> null, (k, v, s) -> Values.folded(s, v), kept));
    }

    KStream<String, String> sliding(JsonNode node, int in) {
        SlidingWindows windows = SlidingWindows.ofTimeDifferenceAndGrace(ms(node, "size"), ms(node, "grace"));
        Materialized<String, String, WindowStore<Bytes, byte[]>> kept = keptWindows(node);
        return results(node, present(in).groupByKey().windowedBy(windows).emitStrategy(strategy(node))
            .aggregate(() -> null, (k, v, s) -> Values.folded(s, v), kept));
    }

    KStream<String, String> sessions(JsonNode node, int in) {
        SessionWindows windows = SessionWindows.ofInactivityGapAndGrace(ms(node, "gap"), ms(node, "grace"));
        Materialized<String, String, SessionStore<Bytes, byte[]>> kept = keptWindows(node);
        // session-close-order.
        if (isClosedBy("strategy", node)) kept = kept.withStoreType(Materialized.StoreType.ROCKS_DB);
        KStream<String, String> results = results(node, present(in).groupByKey().windowedBy(windows)
            .emitStrategy(strategy(node))
            .aggregate(() -> null, (k, v, s) -> Values.folded(s, v), (k, a, b) -> Values.merged(a, b), kept));
        return node.has("close") ? results : results.processValues(Differences.ReplacedSessions::new);
    }

    KStream<String, String> joinStreams(JsonNode node, int in, int with, String kind) {
        JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(Duration.ZERO, ms(node, "grace"))
            .before(ms(node, "before")).after(ms(node, "after"));
        StreamJoined<String, String, String> stores = StreamJoined
            .with(Serdes.String(), Serdes.String(), Serdes.String())
            .withDslStoreSuppliers(new Differences.LongStores());
        ValueJoiner<String, String, String> joiner = Values::joined;
        switch (kind) {
            case "inner": return complete(in).join(complete(with), joiner, windows, stores);
            case "left": return complete(in).leftJoin(complete(with), joiner, windows, stores);
            default: return complete(in).outerJoin(complete(with), joiner, windows, stores);
        }
    }
}
