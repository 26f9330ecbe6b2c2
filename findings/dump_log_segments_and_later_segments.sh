#!/usr/bin/env bash
# Apache Kafka 4.4.0: DumpLogSegments --deep-iteration finds "non-consecutive offsets" in every healthy segment but the first.
#
# The tool expects offset 0 at the start of each file: of a segment that begins at offset 5, as its name says, it reports
# "-1 is followed by 5", on standard error, and ends with status 0. So a script that looks for the words takes every partition
# that has rolled once for damaged, and one that looks at the status is told nothing.
#
# Seen here: two segments that follow each other, written by Kafka's own FileRecords, five records each. The first is read
# without a complaint, the second with one.
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
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$dir/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DoutputDirectory="$dir/libs" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/Segments.java" <<'JAVA'
import java.io.File;
import java.util.stream.IntStream;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

class Segments {
    public static void main(String[] args) throws Exception {
        var records = IntStream.range(0, 5).mapToObj(i -> new SimpleRecord(1000L + i, ("v" + i).getBytes()));
        var values = records.toArray(SimpleRecord[]::new);
        for (long base = 0; base <= 5; base += 5) {
            try (var segment = FileRecords.open(new File(args[0], String.format("%020d.log", base)))) {
                segment.append(MemoryRecords.withRecords(base, Compression.NONE, values));
            }
        }
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Segments.java" "$dir"
same=true
for base in 00000000000000000000 00000000000000000005; do
  status=0
  java -cp "$dir/libs/*" org.apache.kafka.tools.DumpLogSegments --deep-iteration --files "$dir/$base.log" \
    >"$dir/out" 2>"$dir/err" || status=$?
  read_back=$(grep -c '^| offset:' "$dir/out")
  complaint=$(grep -o -- '-1 is followed by [0-9]*' "$dir/err" || true)
  echo "$base.log: $read_back records, status $status, ${complaint:-no complaint}"
  [ "$read_back" = 5 ] && [ "$status" = 0 ] || same=false
  case $base in *0) [ ! -s "$dir/err" ] || same=false ;; *5) [ "$complaint" = "-1 is followed by 5" ] || same=false ;; esac
done
$same || { echo "no longer so"; exit 1; }
