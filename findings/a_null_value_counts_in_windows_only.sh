#!/usr/bin/env bash
# Kafka Streams 4.4.0: count() drops a record without a value, and the same count() in windows counts it.
#
# KGroupedStream.count says in its documentation that records with a null key or value are ignored, and it is so. Put
# windowedBy in between and the record counts: in tumbling windows, in sessions and in sliding windows alike. A reducer is
# called with null there, and the record moves stream time, so it can close other windows too. No metric tells: neither is
# it among the dropped records. Who counts deletions of a compacted topic by hour gets them, who counts them in all does not.
#
# Seen here: k with a value, k without: count 1; in a window of 10 s, 2; in a session, 2; reduced, the second argument is
# null.
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
cat >"$dir/Nulls.java" <<'JAVA'
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.TimeWindows;

class Nulls {
    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        var plain = new ArrayList<Long>();
        var windowed = new ArrayList<Long>();
        var sessions = new ArrayList<Long>();
        var reduced = new ArrayList<String>();
        var grouped = builder.stream("in", Consumed.with(Serdes.String(), Serdes.String())).groupByKey();
        var ten = TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(10));
        grouped.count().toStream().foreach((key, count) -> plain.add(count));
        grouped.windowedBy(ten).count().toStream().foreach((key, count) -> windowed.add(count));
        grouped.windowedBy(SessionWindows.ofInactivityGapWithNoGrace(Duration.ofSeconds(10))).count().toStream()
            .foreach((key, count) -> { if (count != null) sessions.add(count); });
        grouped.windowedBy(ten).reduce((a, b) -> a + "," + b).toStream().foreach((key, value) -> reduced.add(value));
        var config = new Properties();
        config.put("application.id", "nulls");
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", args[0]);
        config.put("statestore.cache.max.bytes", 0);
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var in = driver.createInputTopic("in", new StringSerializer(), new StringSerializer());
            in.pipeInput("k", "v", 0);
            in.pipeInput("k", null, 1);
        }
        System.out.println("count " + plain + ", in a window " + windowed + ", in a session " + sessions + ", reduced " + reduced);
        boolean same = plain.equals(List.of(1L)) && windowed.equals(List.of(1L, 2L)) && sessions.equals(List.of(1L, 2L))
            && reduced.equals(List.of("v", "v,null"));
        System.exit(same ? 0 : 1);
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Nulls.java" "$dir" || { echo "no longer so: a record without a value is treated alike"; exit 1; }
