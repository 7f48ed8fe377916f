import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/** A group member in a thread: commits what it got before it asks for more. */
final class Member extends Thread implements ConsumerRebalanceListener {
    static final String RANGE = "org.apache.kafka.clients.consumer.RangeAssignor";
    static final String ROUND_ROBIN = "org.apache.kafka.clients.consumer.RoundRobinAssignor";
    static final String COOPERATIVE = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";

    /** A change of the assignment: assign, revoke or lost, and how many partitions. */
    record Event(String kind, int partitions) {}

    final List<String> seen = new CopyOnWriteArrayList<>();
    final List<Event> events = new CopyOnWriteArrayList<>();
    volatile Throwable error;
    private volatile Set<TopicPartition> assigned = Set.of();
    private volatile boolean stopAsked;
    private final KafkaConsumer<byte[], byte[]> reader;
    private final List<String> topics;
    private final Map<TopicPartition, OffsetAndMetadata> dirty = new HashMap<>();

    Member(Cluster cluster, String group, List<String> topics, String... settings) {
        this.reader = cluster.consumer(group, settings);
        this.topics = topics;
        setDaemon(true);
        start();
    }

    Set<TopicPartition> assigned() {
        return assigned;
    }

    @Override
    public void run() {
        try (reader) {
            reader.subscribe(topics, this);
            while (!stopAsked) {
                for (ConsumerRecord<byte[], byte[]> one : reader.poll(Duration.ofMillis(100))) {
                    seen.add(Cluster.text(one.value()));
                    dirty.put(new TopicPartition(one.topic(), one.partition()), new OffsetAndMetadata(one.offset() + 1));
                }
                commit();
            }
        } catch (Throwable thrown) {
            error = thrown;
        }
    }

    private void commit() {
        if (dirty.isEmpty()) {
            return;
        }
        try {
            reader.commitSync(dirty);
            dirty.clear();
        } catch (RebalanceInProgressException | CommitFailedException | RetriableException later) {
            // While the group rebalances or its broker starts; made again after it.
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        events.add(new Event("assign", partitions.size()));
        Set<TopicPartition> now = new HashSet<>(assigned);
        now.addAll(partitions);
        assigned = now;
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        forget("revoke", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        forget("lost", partitions);
    }

    private void forget(String kind, Collection<TopicPartition> partitions) {
        events.add(new Event(kind, partitions.size()));
        Set<TopicPartition> now = new HashSet<>(assigned);
        now.removeAll(partitions);
        assigned = now;
        dirty.keySet().removeAll(partitions);
    }

    /** Leaves the group cleanly. */
    void leave() throws Exception {
        stopAsked = true;
        join(Check.SECONDS_MAX * 1000L);
        Check.that(!isAlive(), "a member did not close in time");
        rethrow();
    }

    private void rethrow() {
        if (error != null) {
            throw new AssertionError("a member failed: " + error);
        }
    }

    /** Waits until the members hold all partitions between them, evenly, and none of them twice. */
    static void waitForShare(List<Member> members, int partitions) throws Exception {
        Check.eventually(partitions + " partitions shared", () -> {
            Set<TopicPartition> every = new HashSet<>();
            int held = 0, least = Integer.MAX_VALUE, most = 0;
            for (Member member : members) {
                member.rethrow();
                Set<TopicPartition> own = member.assigned;
                every.addAll(own);
                held += own.size();
                least = Math.min(least, own.size());
                most = Math.max(most, own.size());
            }
            return every.size() == partitions && held == partitions && most - least <= 1;
        });
    }

    /** Waits until all values have been seen; returns how often each one was. */
    static Map<String, Integer> waitForSeen(List<Member> members, Collection<String> expected) throws Exception {
        Set<String> open = new HashSet<>(expected);
        try {
            Check.eventually("all messages seen", () -> {
                members.forEach(member -> member.seen.forEach(open::remove));
                return open.isEmpty();
            });
        } catch (AssertionError late) {
            throw new AssertionError(late.getMessage() + ", " + open.size() + " of " + expected.size() + " missing");
        }
        Map<String, Integer> counts = new TreeMap<>();
        members.forEach(member -> member.seen.forEach(value -> counts.merge(value, 1, Integer::sum)));
        return counts;
    }
}
