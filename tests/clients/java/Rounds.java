import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes rounds with Java kafka-clients, as it is told to: one record of each key, wherever it likes.
 * Usage: Rounds BOOTSTRAP TOPIC NAME TRANSACTIONAL. Each line that it reads is `ROUND PARTITIONS`; what it answers is the fate of the
 * round: `there`, `aborted`, or `unknown`. Every fourth transaction is aborted.
 */
public class Rounds {
    static final int KEYS = 10;

    public static void main(String[] args) throws Exception {
        String topic = args[1], name = args[2];
        boolean transactional = args[3].equals("transactional");
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", args[0], "enable.idempotence", "true", "linger.ms", "1",
            "delivery.timeout.ms", "60000", "request.timeout.ms", "5000", "max.block.ms", "60000", "reconnect.backoff.max.ms", "200"));
        if (transactional) settings.put("transactional.id", name);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
             var lines = new Scanner(System.in)) {
            if (transactional) producer.initTransactions();
            while (lines.hasNextInt()) {
                int number = lines.nextInt(), partitions = lines.nextInt(), n = 0;
                if (transactional) producer.beginTransaction();
                var sent = new ArrayList<Future<RecordMetadata>>();
                for (var region : List.of("eu", "us", "asia")) {
                    for (int key = 0; key < KEYS; key++, n++) {
                        var of = region + "-" + name + "-" + key;
                        sent.add(producer.send(new ProducerRecord<>(topic, (number * 7 + n) % partitions, of, Integer.toString(number))));
                    }
                }
                producer.flush();
                for (var one : sent) one.get();
                System.out.println(transactional ? end(producer, number) : "there");
                System.out.flush();
            }
        } catch (Throwable e) {
            System.err.println("the rounds end: " + e);
            System.exit(1);
        }
    }

    /** Ends the transaction of a round, whose records are acknowledged. */
    static String end(KafkaProducer<String, String> producer, int number) {
        if (number % 4 == 3) {
            producer.abortTransaction();
            return "aborted";
        }
        while (true) {
            try {
                producer.commitTransaction();
                return "there";
            } catch (TimeoutException e) {
                // It may have been committed: only the same call again can tell.
            } catch (KafkaException e) {
                producer.abortTransaction();
                return "unknown";
            }
        }
    }
}
