#!/usr/bin/env bash
# Kafka Streams 4.4.0: a left join says that a row which comes out of order has no match while its grace still runs, and
# then joins it as well.
#
# JoinWindows.ofTimeDifferenceAndGrace(10 s, 1 h) promises that a left row without a match comes out when no match can
# come any more: 10 s and an hour behind it. A row that comes in order is kept that long. One that comes when its 10 s
# have passed on the stream, well within the hour, is sent with null at once, whatever the grace: the moment is compared
# with the end of the window and not with the end of its grace. The right row that comes a moment later is joined with
# it. So the output has both "unmatched" and the match, which the window's grace is there to avoid, and for rows that
# come out of order only.
#
# Seen here: left k at 0 in order, right k at 5 s: one result. Left x at 60 s; then left j at 1 s: sent unmatched at
# once; then right j at 2 s: sent joined.
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
cat >"$dir/Late.java" <<'JAVA'
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
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;

class Late {
    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        var strings = Consumed.with(Serdes.String(), Serdes.String());
        builder.stream("left", strings)
            .leftJoin(builder.stream("right", strings), (left, right) -> left + "+" + right,
                JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(10), Duration.ofHours(1)),
                StreamJoined.with(Serdes.String(), Serdes.String(), Serdes.String()))
            .to("out", Produced.with(Serdes.String(), Serdes.String()));
        var config = new Properties();
        config.put("application.id", "late");
        config.put("bootstrap.servers", "none:1");
        config.put("state.dir", args[0]);
        var seen = new ArrayList<String>();
        try (var driver = new TopologyTestDriver(builder.build(), config)) {
            var left = driver.createInputTopic("left", new StringSerializer(), new StringSerializer());
            var right = driver.createInputTopic("right", new StringSerializer(), new StringSerializer());
            var out = driver.createOutputTopic("out", new StringDeserializer(), new StringDeserializer());
            left.pipeInput("k", "l0", 0);
            right.pipeInput("k", "r5", 5_000);
            left.pipeInput("x", "l60", 60_000);
            left.pipeInput("j", "l1", 1_000);
            right.pipeInput("j", "r2", 2_000);
            out.readRecordsToList().forEach(record -> seen.add(record.key() + "=" + record.value()));
        }
        System.out.println(seen);
        System.exit(seen.equals(List.of("k=l0+r5", "j=l1+null", "j=l1+r2")) ? 0 : 1);
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Late.java" "$dir" || { echo "no longer so: a row that comes late waits for its grace as well"; exit 1; }
