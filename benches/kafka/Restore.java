import java.io.UncheckedIOException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Keeps the last value of each key in a store of one partition, which is made again from its changelog first. Writes how many changes
 * that were into a file when it is done, and goes on until it is killed: Restore SERVERS INPUT STATE_DIRECTORY DONE.
 */
public final class Restore {
    public static void main(String[] args) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "kept");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[2]);
        var builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
            .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.ByteArray()))
            .reduce((before, now) -> now, Materialized.<Bytes, byte[], KeyValueStore<Bytes, byte[]>>as("kept"));
        var streams = new KafkaStreams(builder.build(), settings);
        streams.setGlobalStateRestoreListener(new Told(Path.of(args[3])));
        streams.start();
    }

    private record Told(Path done) implements StateRestoreListener {
        @Override
        public void onRestoreStart(TopicPartition partition, String store, long from, long to) {}

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long end, long records) {}

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long total) {
            try {
                var written = Files.writeString(done.resolveSibling("told"), Long.toString(total));
                Files.move(written, done, StandardCopyOption.ATOMIC_MOVE);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
