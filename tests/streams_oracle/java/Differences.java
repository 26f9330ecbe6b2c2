import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;
import org.apache.kafka.streams.state.DslWindowParams;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowBytesStoreSupplier;

/** Where Kafka Streams is meant to differ, its side is changed by these; runtime/streams/OPERATORS.md names them. */
final class Differences {
    private Differences() { }

    /** absent-tombstone: a row that deletes what is not there is forwarded. */
    static final class AbsentTombstones extends ContextualFixedKeyProcessor<String, String, String> {
        private final Set<String> present = new HashSet<>();

        @Override
        public void process(FixedKeyRecord<String, String> record) {
            boolean changes = record.value() == null ? present.remove(record.key()) : present.add(record.key()) || true;
            if (changes) context().forward(record);
        }
    }

    /** session-same-bounds: a session that takes a row in and keeps its bounds is deleted first. */
    static final class ReplacedSessions extends ContextualFixedKeyProcessor<String, String, String> {
        private final List<FixedKeyRecord<String, String>> deleted = new ArrayList<>();

        @Override
        public void process(FixedKeyRecord<String, String> record) {
            // What is deleted comes before the session that it becomes a part of.
            if (record.value() == null) {
                deleted.add(record);
                return;
            }
            for (FixedKeyRecord<String, String> tombstone : deleted) {
                if (!tombstone.key().equals(record.key())) context().forward(tombstone);
            }
            deleted.clear();
            context().forward(record);
        }
    }

    /** join-store-retention: the stores of a stream-stream join forget rows that can still match. */
    public static final class LongStores extends BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers {
        @Override
        public WindowBytesStoreSupplier windowStore(DslWindowParams params) {
            Duration retention = Duration.ofDays(1);
            return Stores.inMemoryWindowStore(params.name(), retention, params.windowSize(), params.retainDuplicates());
        }
    }
}
