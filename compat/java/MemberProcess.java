import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/** A group member in a process of its own, to be killed: prints each value before it commits. */
public final class MemberProcess {
    private MemberProcess() {}

    public static void main(String[] arguments) {
        Cluster cluster = new Cluster(arguments[0]);
        String[] settings = {"session.timeout.ms", arguments[3], "partition.assignment.strategy", arguments[4]};
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(arguments[1], settings)) {
            reader.subscribe(List.of(arguments[2]));
            while (true) {
                for (ConsumerRecord<byte[], byte[]> one : reader.poll(Duration.ofMillis(100))) {
                    System.out.println(Cluster.text(one.value()));
                }
                try {
                    reader.commitSync();
                } catch (RebalanceInProgressException | CommitFailedException | RetriableException later) {
                    // Whoever has the partition now sees the messages again.
                }
            }
        }
    }
}
