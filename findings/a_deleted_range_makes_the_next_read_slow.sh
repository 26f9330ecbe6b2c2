#!/usr/bin/env bash
# RocksDB 10.10.1 (rocksdbjni of Maven): after each deleteRange the next read sorts all ranges of the memtable anew.
#
# deleteRange writes one short entry and is fast, and so are reads between, whether there is one range or thousands. But the first
# read after a deleteRange cuts all ranges that the memtable has into pieces without overlaps, and keeps them only until the next
# deleteRange. So whoever deletes a range and reads in turn (a store that forgets old windows while it counts new ones) is slowed
# by each range that was deleted since the last flush, until it takes hundreds of times what a read takes; a flush ends it. It is
# the read that is slow, so a profile points at the wrong place.
#
# Seen here, microseconds for a deleteRange and a get in turn, with 10 and with 5,000 ranges in the memtable, and for a get
# alone with 5,000: some 17, 630 and 3; after a flush 17 again.
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
    <dependency><groupId>org.rocksdb</groupId><artifactId>rocksdbjni</artifactId><version>10.10.1.1</version><classifier>linux64</classifier></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$dir/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DoutputDirectory="$dir/libs" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
cat >"$dir/Ranges.java" <<'JAVA'
import java.util.Arrays;
import org.rocksdb.FlushOptions;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;
import org.rocksdb.RocksDBException;
import org.rocksdb.WriteOptions;

class Ranges {
    static final int PAIRS = 101;
    static int next = 0;

    public static void main(String[] args) throws RocksDBException {
        RocksDB.loadLibrary();
        try (var options = new Options().setCreateIfMissing(true); var db = RocksDB.open(options, args[0]);
             var writing = new WriteOptions().setDisableWAL(true); var flushing = new FlushOptions()) {
            for (int i = 0; i < 100_000; i++) db.put(writing, key(i, 0), new byte[50]);
            db.flush(flushing);
            delete(db, writing, 10);
            double few = inTurn(db, writing);
            delete(db, writing, 5_000);
            double many = inTurn(db, writing);
            double alone = median(() -> db.get(key(90_000, 0)));
            db.flush(flushing);
            delete(db, writing, 10);
            double flushed = inTurn(db, writing);
            System.out.printf("deleteRange and get in turn: %.1f us with 10 ranges, %.1f us with 5,000, %.1f us after a flush; "
                + "get alone with 5,000: %.1f us%n", few, many, flushed, alone);
            System.exit(many > 10 * few && many > 10 * flushed && many > 10 * alone ? 0 : 1);
        }
    }

    /** Keys sort by their numbers. */
    static byte[] key(int row, int column) {
        return String.format("%08d-%d", row, column).getBytes();
    }

    static void delete(RocksDB db, WriteOptions writing, int ranges) throws RocksDBException {
        for (int i = 0; i < ranges; i++, next++) db.deleteRange(writing, key(next, 0), key(next, 9));
    }

    static double inTurn(RocksDB db, WriteOptions writing) throws RocksDBException {
        return median(() -> {
            delete(db, writing, 1);
            db.get(key(90_000, 0));
        });
    }

    interface Step { void run() throws RocksDBException; }

    /** Microseconds. */
    static double median(Step step) throws RocksDBException {
        var took = new long[PAIRS];
        for (int i = 0; i < PAIRS; i++) {
            long start = System.nanoTime();
            step.run();
            took[i] = System.nanoTime() - start;
        }
        Arrays.sort(took);
        return took[PAIRS / 2] / 1e3;
    }
}
JAVA
java -cp "$dir/libs/*" "$dir/Ranges.java" "$dir/db" || { echo "no longer so"; exit 1; }
