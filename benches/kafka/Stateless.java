import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/** Hands on every record, exactly once, until it is killed: Stateless SERVERS INPUT OUTPUT STATE_DIRECTORY. */
public final class Stateless {
    public static void main(String[] args) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "stateless");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
        settings.put("auto.offset.reset", "earliest");
        var bytes = Serdes.ByteArray();
        var builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(bytes, bytes)).to(args[2], Produced.with(bytes, bytes));
        new KafkaStreams(builder.build(), settings).start();
    }
}
