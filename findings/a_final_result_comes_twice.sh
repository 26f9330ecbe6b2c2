#!/usr/bin/env bash
# Kafka Streams 4.4.0: a session that suppress(untilWindowCloses) has declared final takes another record in and is
# declared final again.
#
# suppress(Suppressed.untilWindowCloses(..)) promises exactly one result for a window, when nothing can change it any more.
# For sessions it ends them when stream time reaches last record + gap + grace. The aggregate in front of it still takes
# records for that session at that very millisecond; it closes one later. A record with an older timestamp that arrives
# while stream time stands at that moment is counted, and the "final" result comes out a second time, with another value.
# Where each final result is a bill or an alarm there are two of them.
#
# Seen here: gap 5 s, grace 2 s; k at 0, then another key at 7,000: k's session is final with 1. Then k at 0 once more: it
# is final with 2. With the other key at 7,001 the late record is dropped and there is one result.
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
cat >"$dir/Twice.java" <<'JAVA'
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
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.Suppressed;

class Twice {
    public static void main(String[] args) {
        var at = finals(args[0], 7_000);
        var behind = finals(args[0], 7_001);
        System.out.println("final results of k's session, stream time 7000: " + at + ", stream time 7001: " + behind);
        System.exit(at.equals(List.of(1L, 2L)) && behind.equals(List.of(1L)) ? 0 : 1);
    }

    static List<Long> finals(String dir, long now) {
        var results = new ArrayList<Long>();
        var builder = new StreamsBuilder();
        builder.stream("in", Consumed.with(Serdes.String(), Serdes.String()))
            .groupByKey()
            .windowedBy(SessionWindows.ofInactivityGapAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(2)))
            .count()
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .foreach((session, count) -> { if (session.key().equals("k")) results.add(count); });
        var config = new Properties();
        config.put("application.id", "twice" + now);
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", dir);
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var in = driver.createInputTopic("in", new StringSerializer(), new StringSerializer());
            in.pipeInput("k", "v", 0);
            in.pipeInput("other", "v", now);
            in.pipeInput("k", "v", 0);
            in.pipeInput("other", "v", now + 1);
        }
        return results;
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Twice.java" "$dir" || { echo "no longer so: a final result of a session comes once"; exit 1; }
