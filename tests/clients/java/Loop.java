import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/**
 * Consume, transform, produce with Java kafka-clients: every record of one topic once into another, until it is killed.
 * Usage: Loop BOOTSTRAP FROM TO GROUP TRANSACTIONAL-ID. It prints `begin` and `end` around each transaction. What it
 * cannot mend by an abort ends it; whoever runs it starts it again.
 */
public class Loop {
    /** Milliseconds that a transaction stays open, as if records needed some work. */
    static final int WORK = 20;

    static void say(String word) {
        System.out.println(word);
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        String source = args[1], sink = args[2];
        Map<String, Object> reading = Map.of("bootstrap.servers", args[0], "group.id", args[3], "isolation.level", "read_committed",
            "enable.auto.commit", "false", "auto.offset.reset", "earliest", "session.timeout.ms", "3000", "heartbeat.interval.ms", "300",
            "max.poll.records", "50", "fetch.max.wait.ms", "50", "reconnect.backoff.max.ms", "200");
        Map<String, Object> writing = Map.of("bootstrap.servers", args[0], "transactional.id", args[4], "transaction.timeout.ms", "10000",
            "linger.ms", "5", "reconnect.backoff.max.ms", "200");
        try (var consumer = new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());
             var producer = new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer())) {
            consumer.subscribe(List.of(source));
            producer.initTransactions();
            while (true) {
                var batch = consumer.poll(Duration.ofMillis(50));
                if (batch.isEmpty()) continue;
                say("begin");
                if (!transaction(consumer, producer, batch, sink)) {
                    producer.abortTransaction();
                    backToCommitted(consumer);
                }
                say("end");
            }
        } catch (Throwable e) {
            System.err.println("the loop ends: " + e);
            System.exit(1);
        }
    }

    static boolean transaction(KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer,
                               ConsumerRecords<byte[], byte[]> batch, String sink) throws Exception {
        try {
            producer.beginTransaction();
            for (var r : batch) producer.send(new ProducerRecord<>(sink, r.partition(), r.key(), r.value()));
            Thread.sleep(WORK);
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (var tp : batch.partitions()) {
                var records = batch.records(tp);
                offsets.put(tp, new OffsetAndMetadata(records.get(records.size() - 1).offset() + 1));
            }
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            while (true) {
                try {
                    producer.commitTransaction();
                    return true;
                } catch (TimeoutException e) {
                    // It may have been committed: only the same call again can tell.
                }
            }
        } catch (ProducerFencedException | OutOfOrderSequenceException | AuthorizationException | InvalidProducerEpochException e) {
            throw e; // nothing an abort could mend
        } catch (KafkaException e) {
            return false;
        }
    }

    static void backToCommitted(KafkaConsumer<byte[], byte[]> consumer) {
        var committed = consumer.committed(consumer.assignment());
        for (var tp : consumer.assignment()) {
            var offset = committed.get(tp);
            consumer.seek(tp, offset == null ? 0 : offset.offset());
        }
    }
}
