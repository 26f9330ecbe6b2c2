#!/usr/bin/env bash
# Kafka Streams 4.4.0: without a cache, count() tells the table behind it that a new key had the count 0 before.
#
# How many keys have an even count and how many an odd one is count() and groupBy(parity).count(). When a key comes for
# the first time its count goes from nothing to 1. With the default cache that is what the second count sees. With
# statestore.cache.max.bytes 0, which is how one sees every update, the first count says "it was 0, it is 1": the second
# one takes away a key that was never among the even ones, and its numbers are wrong for good. So it is with every
# aggregate(initializer, ..): the initializer's value is sent as the old one. (A group that is not there yet is not
# lowered, so one key alone shows nothing.)
#
# Seen here: keys a and b, two records each, so two keys are even; then c, d, e with one each, so three are odd and two
# still even. With a cache: even 2, odd 3. Without: even -2, odd 3.
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
cat >"$dir/Parity.java" <<'JAVA'
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;

class Parity {
    public static void main(String[] args) {
        var cached = counts(10 << 20, args[0]);
        var uncached = counts(0, args[0]);
        System.out.println("keys by the parity of their counts, with a cache: " + cached + ", without: " + uncached);
        boolean right = cached.equals(Map.of("even", 2L, "odd", 3L));
        System.exit(right && uncached.equals(Map.of("even", -2L, "odd", 3L)) ? 0 : 1);
    }

    static Map<String, Long> counts(long cacheBytes, String dir) {
        var builder = new StreamsBuilder();
        builder.stream("in", Consumed.with(Serdes.String(), Serdes.String()))
            .groupByKey().count()
            .groupBy((key, n) -> KeyValue.pair(n % 2 == 0 ? "even" : "odd", n),
                Grouped.with(Serdes.String(), Serdes.Long()))
            .count().toStream().to("out", Produced.with(Serdes.String(), Serdes.Long()));
        var config = new Properties();
        config.put("application.id", "parity" + cacheBytes);
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", dir);
        config.put("statestore.cache.max.bytes", cacheBytes);
        var last = new TreeMap<String, Long>();
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var in = driver.createInputTopic("in", new StringSerializer(), new StringSerializer());
            for (var key : "a a b b c d e".split(" ")) {
                in.pipeInput(key, "");
                // What is cached goes on, as it does when the interval of commits has passed.
                driver.advanceWallClockTime(Duration.ofMinutes(1));
            }
            var out = driver.createOutputTopic("out", new StringDeserializer(), new LongDeserializer());
            last.putAll(out.readKeyValuesToMap());
        }
        return last;
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Parity.java" "$dir" || { echo "no longer so: both agree"; exit 1; }
