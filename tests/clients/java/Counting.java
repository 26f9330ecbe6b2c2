import java.time.Duration;
import java.util.*;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.*;

/**
 * A Kafka Streams application, exactly once: a count of the input by class, through a repartition topic and a store with a
 * changelog, and a stateless branch with every second record. It runs until it is killed.
 * Usage: Counting BOOTSTRAP INPUT COUNTS EVENS APPLICATION-ID STATE-DIR. Values of the input are `key.number`.
 */
public class Counting {
    static final int CLASSES = 7;

    static long number(String value) { return Long.parseLong(value.substring(value.indexOf('.') + 1)); }

    static Topology topology(String input, String counts, String evens) {
        var builder = new StreamsBuilder();
        var strings = Serdes.String();
        KStream<String, String> in = builder.stream(input, Consumed.with(strings, strings));
        in.filter((key, value) -> number(value) % 2 == 0).to(evens, Produced.with(strings, strings));
        in.selectKey((key, value) -> "class-" + number(value) % CLASSES)
            .groupByKey(Grouped.with("by-class", strings, strings))
            .count(Materialized.as("counts"))
            .toStream().mapValues(count -> Long.toString(count))
            .to(counts, Produced.with(strings, strings));
        return builder.build();
    }

    public static void main(String[] args) {
        var config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[4]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, args[5]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        // No change is hidden behind a later one.
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        config.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 3000);
        config.put(StreamsConfig.consumerPrefix("heartbeat.interval.ms"), 300);
        config.put("reconnect.backoff.max.ms", 200);
        var streams = new KafkaStreams(topology(args[1], args[2], args[3]), config);
        streams.setUncaughtExceptionHandler(e -> {
            System.err.println("a thread of the application ends: " + e);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.setStateListener((now, before) -> {
            System.out.println(now == KafkaStreams.State.RUNNING ? "begin" : "end");
            System.out.flush();
        });
        // SIGTERM stops it as an operator does; kill -9 does not.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
    }
}
