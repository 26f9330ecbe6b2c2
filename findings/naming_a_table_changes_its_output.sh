#!/usr/bin/env bash
# Kafka Streams 4.4.0: to give a table's store a name changes which records come out behind a filter.
#
# A store's name is there for queries, it seems. But behind builder.table(TOPIC) a filter passes on a tombstone for every record
# that it drops, also of keys that never had a value behind it; behind builder.table(TOPIC, Materialized.as(NAME)) only for
# keys that had one. Without a name there is no store and no old value, so the filter cannot know. An output topic of a
# table of which few rows pass holds mostly tombstones of rows that nobody has seen.
#
# Seen here, through TopologyTestDriver: five values of one key, of which the third passes the filter. Without a name five
# records come out, four of them tombstones; with a name two, the value and its tombstone.
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
cat >"$dir/Naming.java" <<'JAVA'
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

class Naming {
    public static void main(String[] args) {
        var text = Serdes.String();
        var unnamed = new StreamsBuilder();
        var first = run(unnamed, unnamed.table("prices", Consumed.with(text, text)), args[0]);
        var named = new StreamsBuilder();
        var name = Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("prices-by-name");
        var second = run(named, named.table("prices", Consumed.with(text, text), name), args[0]);
        System.out.println("without a name: " + first + "\nwith a name:    " + second);
        var same = first.equals(List.of("none", "none", "high", "none", "none")) && second.equals(List.of("high", "none"));
        System.exit(same ? 0 : 1);
    }

    static List<String> run(StreamsBuilder builder, KTable<String, String> table, String state) {
        var text = Serdes.String();
        table.filter((key, value) -> value.equals("high")).toStream().to("high-prices", Produced.with(text, text));
        var settings = new Properties();
        settings.put("application.id", "naming");
        settings.put("bootstrap.servers", "unused:1");
        settings.put("state.dir", state);
        try (var driver = new TopologyTestDriver(builder.build(), settings)) {
            var input = driver.createInputTopic("prices", text.serializer(), text.serializer());
            for (var value : List.of("low", "lower", "high", "low", "lower")) input.pipeInput("bread", value);
            var output = driver.createOutputTopic("high-prices", text.deserializer(), text.deserializer());
            return output.readValuesToList().stream().map(value -> value == null ? "none" : value).toList();
        }
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Naming.java" "$dir/state" || { echo "no longer so"; exit 1; }
