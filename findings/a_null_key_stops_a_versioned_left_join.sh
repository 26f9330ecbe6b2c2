#!/usr/bin/env bash
# Kafka Streams 4.4.0: a record without a key stops an application that left-joins a stream with a versioned table and
# gives the join a grace period.
#
# Since 3.7 a left join with a table takes records without a key: they come out joined with null. It is so with a
# versioned table too. With Joined.withGracePeriod, even of 0 ms, the record is to wait in a buffer that cannot hold it:
# a NullPointerException leaves process(), and the default handler stops the client; started again, it reads the same
# record. An inner join drops the record.
#
# Seen here: the same record through the left join without a grace, through the inner join with one, and through the
# left join with one.
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
cat >"$dir/NullKey.java" <<'JAVA'
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

class NullKey {
    public static void main(String[] args) {
        var left = result(true, false, args[0]);
        var inner = result(false, true, args[0]);
        var leftWithGrace = result(true, true, args[0]);
        System.out.println("left join: " + left);
        System.out.println("inner join with a grace: " + inner);
        System.out.println("left join with a grace: " + leftWithGrace);
        boolean others = left.equals("[null=row+null]") && inner.equals("[]");
        System.exit(others && leftWithGrace.equals("java.lang.NullPointerException") ? 0 : 1);
    }

    static String result(boolean isLeft, boolean hasGrace, String dir) {
        var builder = new StreamsBuilder();
        var strings = Consumed.with(Serdes.String(), Serdes.String());
        var table = builder.table("table", strings,
            Materialized.<String, String>as(
                Stores.persistentVersionedKeyValueStore("versions", Duration.ofHours(1))));
        var joined = Joined.with(Serdes.String(), Serdes.String(), Serdes.String());
        if (hasGrace) joined = joined.withGracePeriod(Duration.ofSeconds(10));
        var stream = builder.stream("stream", strings);
        var results = isLeft ? stream.leftJoin(table, (row, found) -> row + "+" + found, joined)
            : stream.join(table, (row, found) -> row + "+" + found, joined);
        results.to("out", Produced.with(Serdes.String(), Serdes.String()));
        var config = new Properties();
        config.put("application.id", "null-key-" + isLeft + hasGrace);
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", dir);
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            driver.createInputTopic("stream", new StringSerializer(), new StringSerializer())
                .pipeInput(null, "row", 1);
            var out = driver.createOutputTopic("out", new StringDeserializer(), new StringDeserializer());
            return out.readRecordsToList().stream()
                .map(record -> record.key() + "=" + record.value()).toList().toString();
        } catch (RuntimeException e) {
            Throwable cause = e;
            while (cause.getCause() != null) cause = cause.getCause();
            return cause.getClass().getName();
        }
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/NullKey.java" "$dir" || { echo "no longer so: the record is joined"; exit 1; }
