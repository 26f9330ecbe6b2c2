// Apache Kafka's own classes read a partition directory of pelton's, and make its indexes again:
//
//     java -cp "$HOME/.cache/pelton/oracle/libs/*" tests/oracle/ReadPartition.java runtime/commitlog/tests/golden/partition 200
//
// The second argument is index.interval.bytes of the partition. Ends with 1 if an index differs from the one that Kafka's
// recovery makes of the same log, or if Kafka refuses a file. The jars come with `tests/oracle/kafka`. Not part of any suite.

import java.io.File;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.checkpoint.LeaderEpochCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;
import org.apache.kafka.storage.internals.epoch.LeaderEpochFileCache;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.LogSegment;
import org.apache.kafka.storage.internals.log.OffsetIndex;
import org.apache.kafka.storage.internals.log.ProducerStateManager;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.TimeIndex;
import org.apache.kafka.storage.internals.log.TransactionIndex;

public class ReadPartition {
    static final TopicPartition PARTITION = new TopicPartition("oracle", 0);
    static final LogDirFailureChannel FAILURES = new LogDirFailureChannel(1);

    public static void main(String[] args) throws Exception {
        File dir = new File(args[0]);
        System.out.println(new PartitionMetadataFile(new File(dir, "partition.metadata"), FAILURES).read().topicId());
        System.out.println(new LeaderEpochCheckpointFile(new File(dir, "leader-epoch-checkpoint"), FAILURES).read());
        File work = Files.createTempDirectory("oracle").toFile();
        File[] files = dir.listFiles();
        Arrays.sort(files);
        boolean same = true;
        for (File file : files) {
            String name = file.getName();
            if (name.endsWith(".snapshot")) System.out.println(name + " " + ProducerStateManager.readSnapshot(file));
            if (name.endsWith(".log")) same &= segment(dir, work, name.substring(0, 20), args[1]);
        }
        System.exit(same ? 0 : 1);
    }

    static boolean segment(File dir, File work, String base, String interval) throws Exception {
        long offset = Long.parseLong(base);
        OffsetIndex offsets = new OffsetIndex(new File(dir, base + ".index"), offset, -1, false);
        offsets.sanityCheck();
        TimeIndex times = new TimeIndex(new File(dir, base + ".timeindex"), offset, -1, false);
        times.sanityCheck();
        System.out.println(base + " " + offsets.entries() + " offsets to " + offsets.lastOffset() + ", " + times.entries()
            + " timestamps to " + times.lastEntry());
        File aborted = new File(dir, base + ".txnindex");
        if (aborted.exists()) {
            TransactionIndex index = new TransactionIndex(offset, aborted);
            index.sanityCheck();
            System.out.println("  " + index.allAbortedTxns());
        }
        Files.copy(new File(dir, base + ".log").toPath(), new File(work, base + ".log").toPath());
        Properties settings = new Properties();
        settings.put("index.interval.bytes", interval);
        LogSegment segment = LogSegment.open(work, offset, new LogConfig(settings), Time.SYSTEM, true, 0, false, "");
        KafkaScheduler scheduler = new KafkaScheduler(1);
        scheduler.startup();
        LeaderEpochCheckpointFile checkpoint = new LeaderEpochCheckpointFile(new File(work, base + ".epochs"), FAILURES);
        int cut = segment.recover(
            new ProducerStateManager(PARTITION, work, 300000, new ProducerStateManagerConfig(86400000, false), Time.SYSTEM),
            new LeaderEpochFileCache(PARTITION, checkpoint, scheduler));
        segment.close();
        boolean same = cut == 0;
        for (String ending : new String[] {".index", ".timeindex"}) {
            byte[] ours = Files.readAllBytes(new File(dir, base + ending).toPath());
            boolean equal = Arrays.equals(ours, Files.readAllBytes(new File(work, base + ending).toPath()));
            System.out.println("  " + ending + (equal ? " as Kafka makes it" : " DIFFERS from Kafka's"));
            same &= equal;
        }
        return same;
    }
}
