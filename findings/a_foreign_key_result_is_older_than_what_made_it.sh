#!/usr/bin/env bash
# Kafka Streams 4.4.0: the result of a foreign-key join that a right row triggers has the right row's timestamp, also
# where the left row it joins is newer. Every other join takes the later of both.
#
# The documentation of KTable joins says that a result has the larger timestamp of the two rows. So it is for a table-table
# join on keys, and for a foreign-key join when a left row triggers it. When a right row does, the result goes out with the
# right row's time: a result that exists since 100 is dated 50. Windows, versioned tables and retention behind the join go
# by that time, and an update can look older than the result that it replaces.
#
# Seen here: left row at 100 refers to a right row that comes later, dated 50. Join on keys: @100. Foreign-key join: @50.
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
cat >"$dir/Older.java" <<'JAVA'
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
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

class Older {
    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        var strings = Consumed.with(Serdes.String(), Serdes.String());
        var left = builder.table("left", strings);
        var right = builder.table("right", strings);
        left.join(right, (l, r) -> l + "+" + r).toStream().to("on-keys", Produced.with(Serdes.String(), Serdes.String()));
        left.join(right, value -> "k", (l, r) -> l + "+" + r, Materialized.with(Serdes.String(), Serdes.String()))
            .toStream().to("foreign", Produced.with(Serdes.String(), Serdes.String()));
        var config = new Properties();
        config.put("application.id", "older");
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", args[0]);
        var seen = new ArrayList<String>();
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            driver.createInputTopic("left", new StringSerializer(), new StringSerializer()).pipeInput("k", "l", 100);
            driver.createInputTopic("right", new StringSerializer(), new StringSerializer()).pipeInput("k", "r", 50);
            for (var topic : List.of("on-keys", "foreign"))
                driver.createOutputTopic(topic, new StringDeserializer(), new StringDeserializer()).readRecordsToList()
                    .forEach(record -> seen.add(topic + " " + record.value() + " @" + record.timestamp()));
        }
        System.out.println(seen);
        System.exit(seen.equals(List.of("on-keys l+r @100", "foreign l+r @50")) ? 0 : 1);
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Older.java" "$dir" || { echo "no longer so: the result has the later time of both rows"; exit 1; }
