#!/usr/bin/env bash
# Apache Kafka 4.4.0: compaction packs a batch again at its codec's own level, whatever level it was written with.
#
# A compacted topic with compression.gzip.level=9, or a producer with a high zstd level, has small batches until the cleaner
# takes one record out of one: what is left is packed at the level that the codec has when nobody names one, and is larger
# than the batch was with that record in it. So compaction makes such a log grow. A batch says its codec and not its level, and
# MemoryRecords.filterTo, which the cleaner calls, has no argument for one.
#
# Seen here: 2,000 records in one batch, one of them taken out by filterTo; the size of the batch before, and after. It grows for
# gzip 9 (6 %), zstd 19 (27 %) and lz4 17 (30 %); from gzip 1 it shrinks (14 %).
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
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$dir/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DoutputDirectory="$dir/libs" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/Compact.java" <<'JAVA'
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Random;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.internals.BufferSupplier;

class Compact {
    /** Keeps all records but the one at offset 7. */
    static final class Filter extends MemoryRecords.RecordFilter {
        Filter() { super(0, 0); }
        @Override protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
            return new BatchRetentionResult(BatchRetention.DELETE_EMPTY, false);
        }
        @Override protected boolean shouldRetainRecord(RecordBatch batch, Record record) { return record.offset() != 7; }
    }

    public static void main(String[] args) {
        var random = new Random(1);
        var records = new SimpleRecord[2000];
        for (int i = 0; i < records.length; i++) {
            var value = "{\"customer\":" + random.nextInt(5000) + ",\"branch\":\"b" + random.nextInt(50) + "\",\"cents\":"
                + random.nextInt(100_000) + ",\"reason\":\"an order that was paid in part " + random.nextInt(10) + "\"}";
            records[i] = new SimpleRecord(1000L + i, ("k" + i).getBytes(), value.getBytes());
        }
        boolean same = true;
        same &= grows("gzip level 1", Compression.gzip().level(1).build(), records) == false;
        same &= grows("gzip level 9", Compression.gzip().level(9).build(), records);
        same &= grows("zstd level 19", Compression.zstd().level(19).build(), records);
        same &= grows("lz4 level 17", Compression.lz4().level(17).build(), records);
        System.exit(same ? 0 : 1);
    }

    static boolean grows(String what, Compression compression, SimpleRecord[] records) {
        var before = MemoryRecords.withRecords(compression, records);
        var after = before.filterTo(new Filter(), ByteBuffer.allocate(1 << 20), BufferSupplier.NO_CACHING, Integer.MAX_VALUE);
        System.out.printf("%-14s %d records in %d bytes; compacted: %d records in %d bytes%n", what, after.messagesRead(),
            before.sizeInBytes(), after.messagesRetained(), after.bytesRetained());
        if (after.messagesRetained() != records.length - 1) throw new AssertionError("not one record was taken out");
        return after.bytesRetained() > before.sizeInBytes();
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Compact.java" || { echo "no longer so: compaction keeps the level, or the codecs have changed"; exit 1; }
