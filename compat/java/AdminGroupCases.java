import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** Administration of groups and their offsets. */
final class AdminGroupCases {
    private AdminGroupCases() {}

    static void register(Suite suite) {
        suite.add("groups_are_listed_described_and_deleted", AdminGroupCases::groups);
        suite.add("group_offsets_are_listed_and_altered", AdminGroupCases::offsets);
        suite.add("group_offsets_are_deleted_for_topics_that_no_member_reads", AdminGroupCases::deleteOffsets);
    }

    private static ConsumerGroupDescription describe(Cluster cluster, String group) throws Exception {
        return Cluster.get(cluster.admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private static List<GroupState> listed(Cluster cluster, String group, ListGroupsOptions options) throws Exception {
        Collection<GroupListing> all = Cluster.get(cluster.admin.listGroups(options).all());
        return all.stream().filter(one -> one.groupId().equals(group)).map(one -> one.groupState().orElseThrow()).toList();
    }

    private static void groups(Cluster cluster) throws Exception {
        String topic = cluster.topic(4), group = cluster.unique("group");
        cluster.produce(Cluster.numbered(topic, 0, 4, "value"));
        List<Member> members = new ArrayList<>();
        for (int number = 0; number < 2; number++) {
            members.add(new Member(cluster, group, List.of(topic), "client.id", group + number, "partition.assignment.strategy", Member.RANGE));
        }
        Member.waitForShare(members, 4);
        Member.waitForSeen(members, List.of("value-0", "value-1", "value-2", "value-3"));
        ConsumerGroupDescription found = describe(cluster, group);
        Check.equal(List.of(found.groupState(), found.partitionAssignor(), found.isSimpleConsumerGroup()), List.of(GroupState.STABLE, "range", false), "group");
        Check.equal(found.members().stream().map(one -> one.clientId()).collect(Collectors.toCollection(TreeSet::new)), new TreeSet<>(List.of(group + 0, group + 1)), "clients");
        Check.equal(found.members().stream().mapToInt(one -> one.assignment().topicPartitions().size()).sum(), 4, "partitions of the members");
        Check.that(found.members().stream().allMatch(one -> one.host().startsWith("/127.0.0.1")), "hosts of the members");
        Check.equal(listed(cluster, group, new ListGroupsOptions()), List.of(GroupState.STABLE), "listed");
        Check.equal(listed(cluster, group, new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))), List.of(), "listed as empty");
        Check.refusedAs(GroupNotEmptyException.class, "deleting a group with members", () -> Cluster.get(cluster.admin.deleteConsumerGroups(List.of(group)).all()));
        for (Member member : members) {
            member.leave();
        }
        Check.equal(describe(cluster, group).groupState(), GroupState.EMPTY, "state without members");
        Check.equal(listed(cluster, group, new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))), List.of(GroupState.EMPTY), "listed as empty");
        Cluster.get(cluster.admin.deleteConsumerGroups(List.of(group)).all());
        Check.equal(listed(cluster, group, new ListGroupsOptions()), List.of(), "a deleted group is listed");
        Check.refusedAs(GroupIdNotFoundException.class, "deleting a group that is not", () -> Cluster.get(cluster.admin.deleteConsumerGroups(List.of(group)).all()));
        Check.refusedAs(GroupIdNotFoundException.class, "describing a group that is not", () -> describe(cluster, group));
    }

    private static Map<TopicPartition, OffsetAndMetadata> listOffsets(Cluster cluster, String group) throws Exception {
        return Cluster.get(cluster.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    private static void offsets(Cluster cluster) throws Exception {
        String topic = cluster.topic(2), group = cluster.unique("group");
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        List<String> expected = new ArrayList<>();
        for (int number = 0; number < 20; number++) {
            records.add(new ProducerRecord<>(topic, number % 2, null, Cluster.bytes("" + number)));
            if (number / 2 >= (number % 2 == 0 ? 4 : 6)) {
                expected.add("" + number);
            }
        }
        cluster.produce(records);
        Map<TopicPartition, OffsetAndMetadata> wanted = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(4, "note"),
            new TopicPartition(topic, 1), new OffsetAndMetadata(6));
        Cluster.get(cluster.admin.alterConsumerGroupOffsets(group, wanted).all());
        Map<TopicPartition, OffsetAndMetadata> found = listOffsets(cluster, group);
        Check.equal(found.keySet(), wanted.keySet(), "partitions");
        Check.equal(found.get(new TopicPartition(topic, 0)).offset(), 4L, "offset");
        Check.equal(found.get(new TopicPartition(topic, 0)).metadata(), "note", "metadata");
        Check.equal(found.get(new TopicPartition(topic, 1)).offset(), 6L, "offset");
        Member member = new Member(cluster, group, List.of(topic));
        Map<String, Integer> seen = Member.waitForSeen(List.of(member), expected);
        Check.equal(seen.keySet(), new TreeSet<>(expected), "messages from the altered offsets");
        Check.refusedAs(UnknownMemberIdException.class, "altering the offsets of a group with members",
            () -> Cluster.get(cluster.admin.alterConsumerGroupOffsets(group, wanted).all()));
        member.leave();
    }

    private static void deleteOffsets(Cluster cluster) throws Exception {
        String read = cluster.topic(1), unread = cluster.topic(1), group = cluster.unique("group");
        TopicPartition busy = new TopicPartition(read, 0), idle = new TopicPartition(unread, 0);
        Cluster.get(cluster.admin.alterConsumerGroupOffsets(group, Map.of(busy, new OffsetAndMetadata(0), idle, new OffsetAndMetadata(0))).all());
        Member member = new Member(cluster, group, List.of(read));
        Member.waitForShare(List.of(member), 1);
        Check.refusedAs(GroupSubscribedToTopicException.class, "deleting the offset of a topic that is read",
            () -> Cluster.get(cluster.admin.deleteConsumerGroupOffsets(group, Set.of(busy)).all()));
        Cluster.get(cluster.admin.deleteConsumerGroupOffsets(group, Set.of(idle)).all());
        Check.equal(listOffsets(cluster, group).keySet(), Set.of(busy), "offsets left");
        member.leave();
        Cluster.get(cluster.admin.deleteConsumerGroupOffsets(group, Set.of(busy)).all());
        Check.refusedAs(GroupIdNotFoundException.class, "deleting the offset of a group that is not",
            () -> Cluster.get(cluster.admin.deleteConsumerGroupOffsets(cluster.unique("missing"), Set.of(idle)).all()));
    }
}
