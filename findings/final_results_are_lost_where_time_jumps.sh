#!/usr/bin/env bash
# Kafka Streams 4.4.0: emitStrategy(onWindowClose()) never emits windows that close while stream time jumps, if the
# statestore cache is off.
#
# EmitStrategy.onWindowClose() is for one final result per window. It scans the store for windows that have closed since
# the last time. The store forgets windows by stream time too, by whole segments, before the scan: where one record moves
# time far ahead (the first record of the morning, or of a topic that slept), what was still open before it has gone
# before it is looked for. Nothing is emitted, nothing is counted as dropped. With the cache on, as it comes, the same
# windows are still in the cache and all results come; people switch it off to see every update, and in tests.
#
# Seen here: tumbling windows of 10 s with a grace of 100 s; a record at 0, one at 10,000, one at 140,001: three windows, of
# which two have closed. With a cache of 10 MiB both come; without none.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/pom.xml" <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-streams-test-utils</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$dir/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DoutputDirectory="$dir/libs" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/Lost.java" <<'JAVA'
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.TimeWindows;

class Lost {
    public static void main(String[] args) {
        var cached = finals(args[0], 10 << 20);
        var uncached = finals(args[0], 0);
        System.out.println("starts of windows with a final result, with a cache: " + cached + ", without: " + uncached);
        System.exit(cached.equals(List.of(0L, 10_000L)) && uncached.isEmpty() ? 0 : 1);
    }

    static List<Long> finals(String dir, int cacheBytes) {
        var results = new ArrayList<Long>();
        var builder = new StreamsBuilder();
        builder.stream("in", Consumed.with(Serdes.String(), Serdes.String()))
            .groupByKey()
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofSeconds(10), Duration.ofSeconds(100)))
            .emitStrategy(EmitStrategy.onWindowClose())
            .count()
            .toStream()
            .foreach((window, count) -> results.add(window.window().start()));
        var config = new Properties();
        config.put("application.id", "lost" + cacheBytes);
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", dir);
        config.put("statestore.cache.max.bytes", cacheBytes);
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var in = driver.createInputTopic("in", new StringSerializer(), new StringSerializer());
            in.pipeInput("k", "v", 0);
            in.pipeInput("k", "v", 10_000);
            in.pipeInput("k", "v", 140_001);
        }
        return results;
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Lost.java" "$dir" || { echo "no longer so: a jump of time loses no final results"; exit 1; }
