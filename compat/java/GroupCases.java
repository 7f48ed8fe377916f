import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;

/** Groups: members that join, leave, return and die; commits. */
final class GroupCases {
    private static final int PARTITIONS = 6;

    private GroupCases() {}

    static void register(Suite suite) {
        suite.add("the_partitions_of_a_killed_member_are_taken_over_and_nothing_is_missed", GroupCases::killedMember);
        suite.add("a_group_of_three_shares_by_range_and_sees_each_message_once", GroupCases::byRange);
        suite.add("a_group_of_three_shares_by_cooperative_sticky_and_sees_each_message_once", GroupCases::byCooperativeSticky);
        suite.add("a_static_member_returns_without_a_rebalance", GroupCases::staticMember);
        suite.add("a_second_member_of_the_same_instance_id_fences_the_first", GroupCases::fencing);
        suite.add("commits_are_where_the_next_member_resumes", GroupCases::commits);
        suite.add("two_groups_read_the_same_messages_and_commit_apart", GroupCases::twoGroups);
        suite.add("a_member_that_stops_polling_loses_its_partitions_and_cannot_commit", GroupCases::slowMember);
        suite.add("a_group_reads_several_topics", GroupCases::severalTopics);
    }

    /** Sends numbered messages, round robin over the partitions, until it is stopped. */
    private static final class Load extends Thread {
        private final List<String> sent = new CopyOnWriteArrayList<>();
        private final Cluster cluster;
        private final String topic;
        private volatile boolean stopAsked;
        private volatile Exception error;

        Load(Cluster cluster, String topic) {
            this.cluster = cluster;
            this.topic = topic;
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
                while (!stopAsked) {
                    String value = "load-" + sent.size();
                    producer.send(new ProducerRecord<>(topic, sent.size() % PARTITIONS, null, Cluster.bytes(value)), (place, failed) -> {
                        if (failed != null) {
                            error = failed;
                        }
                    });
                    sent.add(value);
                    Thread.sleep(5);
                }
            } catch (InterruptedException never) {
                Thread.currentThread().interrupt();
            }
        }

        Collection<String> end() throws InterruptedException {
            stopAsked = true;
            join();
            Check.that(error == null, "the load was not delivered: " + error);
            return sent;
        }
    }

    /** Three members join one after the other, one leaves: every message is seen once; what the second one was told. */
    private static List<Member.Event> joinAndLeaveUnderLoad(Cluster cluster, String strategy) throws Exception {
        String topic = cluster.topic(PARTITIONS), group = cluster.unique("group");
        Load load = new Load(cluster, topic);
        List<Member> members = new ArrayList<>();
        for (int count = 0; count < 3; count++) {
            members.add(new Member(cluster, group, List.of(topic), "partition.assignment.strategy", strategy, "session.timeout.ms", "45000"));
            Member.waitForShare(members, PARTITIONS);
        }
        Thread.sleep(300);
        long left = System.nanoTime();
        members.get(0).leave();
        Member.waitForShare(members.subList(1, 3), PARTITIONS);
        Check.that(System.nanoTime() - left < 20_000_000_000L, "the partitions of a member that left were handed over too late");
        Thread.sleep(300);
        Collection<String> sent = load.end();
        Map<String, Integer> seen = Member.waitForSeen(members, sent);
        List<Member.Event> events = List.copyOf(members.get(1).events);
        members.get(1).leave();
        members.get(2).leave();
        Check.equal(seen.values().stream().filter(times -> times > 1).count(), 0L, "messages seen more than once though no one died");
        Check.equal(seen.size(), sent.size(), "messages seen");
        return events;
    }

    private static void byRange(Cluster cluster) throws Exception {
        List<Member.Event> events = joinAndLeaveUnderLoad(cluster, Member.RANGE);
        // Everything is given up in each rebalance: when the third member joins, and when the first leaves.
        Check.equal(events, List.of(new Member.Event("assign", 3), new Member.Event("revoke", 3), new Member.Event("assign", 2),
            new Member.Event("revoke", 2), new Member.Event("assign", 3)), "what the second member was told");
    }

    private static void byCooperativeSticky(Cluster cluster) throws Exception {
        List<Member.Event> events = joinAndLeaveUnderLoad(cluster, Member.COOPERATIVE);
        // Only what moves is given up: one partition to the third member, and one comes back from the first.
        Check.equal(events.stream().filter(event -> event.partitions() > 0).toList(), List.of(new Member.Event("assign", 3),
            new Member.Event("revoke", 1), new Member.Event("assign", 1)), "what the second member was told");
    }

    private static void killedMember(Cluster cluster) throws Exception {
        for (String strategy : List.of(Member.RANGE, Member.COOPERATIVE)) {
            String topic = cluster.topic(PARTITIONS), group = cluster.unique("group");
            Load load = new Load(cluster, topic);
            String[] settings = {"partition.assignment.strategy", strategy, "session.timeout.ms", "45000"};
            List<Member> members = List.of(new Member(cluster, group, List.of(topic), settings), new Member(cluster, group, List.of(topic), settings));
            Member.waitForShare(members, PARTITIONS);
            Process victim = new ProcessBuilder(ProcessHandle.current().info().command().orElse("java"), "-Xmx64m", "-XX:TieredStopAtLevel=1",
                "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"), "-cp", System.getProperty("java.class.path"),
                "MemberProcess", cluster.bootstrap, group, topic, "2000", strategy).redirectError(ProcessBuilder.Redirect.DISCARD).start();
            Set<String> seenByVictim = ConcurrentHashMap.newKeySet();
            Thread listener = new Thread(() -> new BufferedReader(new InputStreamReader(victim.getInputStream(), StandardCharsets.UTF_8))
                .lines().forEach(seenByVictim::add));
            listener.start();
            try {
                Member.waitForShare(members, 4);
                Check.eventually("the third member has seen something", () -> !seenByVictim.isEmpty());
            } finally {
                // Not Process.destroyForcibly, which closes the pipe: what the victim had said before its last commit would be lost.
                victim.toHandle().destroyForcibly();
                victim.waitFor();
            }
            listener.join();
            long killed = System.nanoTime();
            Member.waitForShare(members, PARTITIONS);
            Check.that(System.nanoTime() - killed < 15_000_000_000L, "the partitions of a killed member with a session of 2 s were taken over too late");
            Set<String> expected = new HashSet<>(load.end());
            expected.removeAll(seenByVictim);
            Member.waitForSeen(members, expected);
            for (Member member : members) {
                member.leave();
            }
        }
    }

    private static void staticMember(Cluster cluster) throws Exception {
        String topic = cluster.topic(4), group = cluster.unique("group");
        String[] first = {"group.instance.id", "first", "partition.assignment.strategy", Member.RANGE, "session.timeout.ms", "30000"};
        String[] second = {"group.instance.id", "second", "partition.assignment.strategy", Member.RANGE, "session.timeout.ms", "30000"};
        Member one = new Member(cluster, group, List.of(topic), first), other = new Member(cluster, group, List.of(topic), second);
        Member.waitForShare(List.of(one, other), 4);
        Set<TopicPartition> held = one.assigned();
        List<Member.Event> events = List.copyOf(other.events);
        one.leave(); // a static member says nothing when it closes
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 40; number++) {
            records.add(new ProducerRecord<>(topic, number % 4, null, Cluster.bytes("" + number)));
        }
        cluster.produce(records);
        Member again = new Member(cluster, group, List.of(topic), first);
        Check.eventually("the returning member has its partitions", () -> !again.assigned().isEmpty());
        Check.equal(again.assigned(), held, "partitions of the returning member");
        Map<String, Integer> seen = Member.waitForSeen(List.of(again, other), IntStream.range(0, 40).mapToObj(number -> "" + number).toList());
        Check.equal(seen.values().stream().filter(times -> times > 1).count(), 0L, "messages seen more than once");
        Check.equal(other.events, events, "what the other member was told");
        again.leave();
        other.leave();
    }

    private static void fencing(Cluster cluster) throws Exception {
        String topic = cluster.topic(1), group = cluster.unique("group");
        String[] settings = {"group.instance.id", "only", "session.timeout.ms", "30000", "heartbeat.interval.ms", "300"};
        Member first = new Member(cluster, group, List.of(topic), settings);
        Member.waitForShare(List.of(first), 1);
        Member second = new Member(cluster, group, List.of(topic), settings);
        Member.waitForShare(List.of(second), 1);
        first.join(Check.SECONDS_MAX * 1000L);
        Check.that(first.error instanceof FencedInstanceIdException, "the first member was told: " + first.error);
        cluster.produce(Cluster.numbered(topic, 0, 3, "value"));
        Member.waitForSeen(List.of(second), List.of("value-0", "value-1", "value-2"));
        second.leave();
    }

    private static List<String> next(KafkaConsumer<byte[], byte[]> reader, int count) throws Exception {
        List<String> got = new ArrayList<>();
        Check.eventually(count + " messages", () -> {
            for (ConsumerRecord<byte[], byte[]> one : reader.poll(Duration.ofMillis(200))) {
                got.add(Cluster.text(one.value()));
            }
            return got.size() >= count;
        });
        return got;
    }

    private static void commits(Cluster cluster) throws Exception {
        String topic = cluster.topic(1), group = cluster.unique("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        cluster.produce(Cluster.numbered(topic, 0, 30, "value"));
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(group)) {
            reader.subscribe(List.of(topic));
            Check.equal(next(reader, 10).get(0), "value-0", "first message of the first member");
            reader.commitSync(Map.of(partition, new OffsetAndMetadata(7, "note of the commit")));
        }
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(group)) {
            reader.subscribe(List.of(topic));
            Check.equal(next(reader, 5).get(0), "value-7", "first message of the second member");
            OffsetAndMetadata stored = reader.committed(Set.of(partition)).get(partition);
            Check.equal(stored.offset(), 7L, "committed offset");
            Check.equal(stored.metadata(), "note of the commit", "its metadata");
        }
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(group, "enable.auto.commit", "true")) {
            reader.subscribe(List.of(topic));
            Check.equal(next(reader, 23).get(0), "value-7", "the third member starts at the commit, the second one made none");
        }
        Check.equal(committed(cluster, group, partition), 30L, "offset committed by the close of a member that commits by itself");
    }

    private static long committed(Cluster cluster, String group, TopicPartition partition) throws Exception {
        return Cluster.get(cluster.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition).offset();
    }

    private static void twoGroups(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        cluster.produce(Cluster.numbered(topic, 0, 20, "value"));
        List<String> expected = IntStream.range(0, 20).mapToObj(number -> "value-" + number).toList();
        for (int count = 0; count < 2; count++) {
            String group = cluster.unique("group");
            Member member = new Member(cluster, group, List.of(topic));
            Member.waitForSeen(List.of(member), expected);
            member.leave();
            Check.equal(member.seen, expected, "messages");
            Check.equal(committed(cluster, group, new TopicPartition(topic, 0)), 20L, "committed offset");
        }
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"))) {
            TopicPartition partition = new TopicPartition(topic, 0);
            Check.equal(reader.committed(Set.of(partition)).get(partition), null, "committed offset of a group that never was");
        }
    }

    private static void slowMember(Cluster cluster) throws Exception {
        String topic = cluster.topic(1), group = cluster.unique("group");
        cluster.produce(Cluster.numbered(topic, 0, 5, "value"));
        KafkaConsumer<byte[], byte[]> slow = cluster.consumer(group, "max.poll.interval.ms", "1500", "session.timeout.ms", "1500", "max.poll.records", "1");
        try (slow) {
            slow.subscribe(List.of(topic));
            next(slow, 1);
            Member heir = new Member(cluster, group, List.of(topic));
            Thread.sleep(2500); // the slow member is over its poll interval now, and leaves
            Member.waitForShare(List.of(heir), 1);
            Member.waitForSeen(List.of(heir), List.of("value-0", "value-1", "value-2", "value-3", "value-4"));
            Check.refusedAs(CommitFailedException.class, "the commit of a member that lost its partition", slow::commitSync);
            Check.equal(committed(cluster, group, new TopicPartition(topic, 0)), 5L, "committed offset");
            heir.leave();
        }
    }

    private static void severalTopics(Cluster cluster) throws Exception {
        List<String> topics = List.of(cluster.topic(3), cluster.topic(3));
        List<String> expected = new ArrayList<>();
        for (String topic : topics) {
            List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
            for (int number = 0; number < 30; number++) {
                String value = topic + "/" + number;
                expected.add(value);
                records.add(new ProducerRecord<>(topic, number % 3, null, Cluster.bytes(value)));
            }
            cluster.produce(records);
        }
        String group = cluster.unique("group");
        List<Member> members = IntStream.range(0, 3)
            .mapToObj(any -> new Member(cluster, group, topics, "partition.assignment.strategy", Member.ROUND_ROBIN)).toList();
        Member.waitForShare(members, 6);
        Member.waitForSeen(members, expected);
        for (Member member : members) {
            member.leave();
        }
    }
}
