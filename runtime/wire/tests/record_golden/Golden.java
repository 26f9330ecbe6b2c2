// Writes golden.txt: record batches as Kafka's own Java code (kafka-clients 4.3.1) makes them, one a line, name and hex.
//
//   javac -cp 'libs/*' Golden.java && java -cp 'libs/*:.' Golden > golden.txt
//
// With the argument `read` it reads such lines from its input, made by anybody, and prints what Kafka sees in them.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

public class Golden {
    static final long START = 1_700_000_000_000L;

    public static void main(String[] args) throws Exception {
        if (args.length > 0 && args[0].equals("read")) {
            read();
            return;
        }
        data("none", Compression.NONE, 10);
        data("gzip", Compression.gzip().build(), 300);
        data("snappy", Compression.snappy().build(), 900);
        data("lz4", Compression.lz4().build(), 900);
        data("zstd", Compression.zstd().build(), 300);
        print("log-append-time", batch(Compression.NONE, TimestampType.LOG_APPEND_TIME, 5555, -1, (short) -1, -1, false, 3));
        print("transactional", batch(Compression.NONE, TimestampType.CREATE_TIME, -1, 4711, (short) 7, Integer.MAX_VALUE - 1, true, 5));
        for (ControlRecordType type : new ControlRecordType[] {ControlRecordType.ABORT, ControlRecordType.COMMIT}) {
            print("marker-" + type.name().toLowerCase(), MemoryRecords.withEndTransactionMarker(
                99, START, 3, 4711, (short) 7, new EndTransactionMarker(type, 12)).buffer());
        }
        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, (byte) 2, 4711, (short) 7, 40, 1000, 1009, 3,
            TimestampType.CREATE_TIME, START, true, false);
        empty.flip();
        print("empty", empty);
        MemoryRecordsBuilder horizon = new MemoryRecordsBuilder(new ByteBufferOutputStream(512), (byte) 2, Compression.NONE,
            TimestampType.CREATE_TIME, 1000, -1, -1, (short) -1, -1, false, false, 3, Integer.MAX_VALUE, START + 86_400_000L);
        horizon.appendWithOffset(1004, START, "gone".getBytes(), null);
        horizon.appendWithOffset(1007, START + 1, "kept".getBytes(), "value".getBytes());
        horizon.overrideLastOffset(1009);
        print("delete-horizon", horizon.build().buffer());
    }

    static void data(String name, Compression compression, int count) {
        print(name, batch(compression, TimestampType.CREATE_TIME, -1, -1, (short) -1, -1, false, count));
    }

    static ByteBuffer batch(Compression compression, TimestampType type, long appendTime, long producerId, short epoch,
                            int sequence, boolean transactional, int count) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), (byte) 2, compression, type, 1000,
            appendTime, producerId, epoch, sequence, transactional, 3);
        for (int i = 0; i < count; i++) {
            byte[] key = i % 5 == 0 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
            byte[] value = i % 7 == 3 ? null : ("value-" + i + " ").repeat(i % 13).getBytes(StandardCharsets.UTF_8);
            Header[] all = {new RecordHeader("trace", ("t-" + i).getBytes()), new RecordHeader("trace", (byte[]) null),
                new RecordHeader("", new byte[0])};
            builder.append(START + i * 37L - (i % 3) * 1000L, key, value, java.util.Arrays.copyOf(all, i % 4));
        }
        return builder.build().buffer();
    }

    static void print(String name, ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        System.out.println(name + " " + HexFormat.of().formatHex(bytes));
    }

    static void read() throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            String[] parts = line.split(" ");
            ByteBuffer buffer = ByteBuffer.wrap(HexFormat.of().parseHex(parts[1]));
            for (MutableRecordBatch batch : MemoryRecords.readableRecords(buffer).batches()) {
                batch.ensureValid();
                System.out.println(parts[0] + " " + batch);
                for (Record record : batch) {
                    StringBuilder headers = new StringBuilder();
                    for (Header header : record.headers())
                        headers.append(header.key()).append('=').append(hex(header.value())).append(' ');
                    System.out.println(record.offset() + " " + record.sequence() + " " + record.timestamp() + " "
                        + hex(bytes(record.key())) + " " + hex(bytes(record.value())) + " " + headers);
                }
            }
        }
    }

    static byte[] bytes(ByteBuffer buffer) {
        if (buffer == null) return null;
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : "'" + HexFormat.of().formatHex(bytes) + "'";
    }
}
