#!/usr/bin/env bash
# Kafka Streams 4.4.0: a versioned table sends an out-of-order row downstream although the row does not become its value.
#
# A versioned store puts a row with an older timestamp into the history and keeps the newer one as the latest: that is what
# it is for. table.toStream() forwards the older row all the same, after the newer one. Who writes that stream to a topic
# and reads it as a table again, or keeps the last update in a cache, ends with the older value, and the two tables differ
# for good. An aggregate of the versioned table does ignore the row, so two ways out of one table disagree.
#
# Seen here: ten at 10, then five at 5. The table holds ten; its stream ends with five; counting its rows by value has seen
# ten alone.
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
cat >"$dir/Versions.java" <<'JAVA'
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.Stores;

class Versions {
    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        var streamed = new ArrayList<String>();
        var groups = new ArrayList<String>();
        var table = builder.table("in", Consumed.with(Serdes.String(), Serdes.String()),
            Materialized.<String, String>as(Stores.persistentVersionedKeyValueStore("kept", Duration.ofHours(1))));
        table.toStream().foreach((key, value) -> streamed.add(value));
        table.groupBy((key, value) -> KeyValue.pair(value, value), Grouped.with(Serdes.String(), Serdes.String())).count()
            .toStream().foreach((group, count) -> { if (count > 0) groups.add(group); });
        var config = new Properties();
        config.put("application.id", "versions");
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", args[0]);
        config.put("statestore.cache.max.bytes", 0);
        config.put("default.key.serde", Serdes.String().getClass());
        config.put("default.value.serde", Serdes.String().getClass());
        String held;
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var in = driver.createInputTopic("in", new StringSerializer(), new StringSerializer());
            in.pipeInput("k", "ten", 10);
            in.pipeInput("k", "five", 5);
            held = driver.<String, String>getVersionedKeyValueStore("kept").get("k").value();
        }
        System.out.println("the table holds " + held + ", its stream was " + streamed + ", grouped it was " + groups);
        System.exit(held.equals("ten") && streamed.equals(List.of("ten", "five")) && groups.equals(List.of("ten")) ? 0 : 1);
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Versions.java" "$dir" || { echo "no longer so: the stream of a versioned table is what the table held"; exit 1; }
