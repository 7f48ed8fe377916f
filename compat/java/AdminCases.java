import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Administration of topics, partitions, settings and records; the cluster. */
final class AdminCases {
    private AdminCases() {}

    static void register(Suite suite) {
        suite.add("topics_are_created_described_and_deleted", AdminCases::topics);
        suite.add("a_topic_that_is_only_validated_is_not_created", AdminCases::validateOnly);
        suite.add("a_topic_without_counts_gets_the_defaults_of_the_broker", AdminCases::defaults);
        suite.add("partitions_are_added_and_never_removed", AdminCases::partitions);
        suite.add("topic_settings_are_described_and_altered", AdminCases::topicSettings);
        suite.add("unknown_settings_and_bad_values_are_refused_by_name", AdminCases::badSettings);
        suite.add("broker_settings_are_described", AdminCases::brokerSettings);
        suite.add("invalid_topic_names_and_counts_are_refused", AdminCases::invalidTopics);
        suite.add("records_are_deleted_up_to_an_offset", AdminCases::deleteRecords);
        suite.add("offsets_are_listed_from_either_end_by_time_and_by_the_newest_time", AdminCases::listOffsets);
        suite.add("the_cluster_is_described", AdminCases::cluster);
        suite.add("log_directories_are_described", AdminCases::logDirectories);
        suite.add("an_unknown_topic_is_refused_when_topics_are_not_made_by_themselves", AdminCases::unknownTopic);
    }

    private static void createTopic(Cluster cluster, NewTopic topic) throws Exception {
        Cluster.get(cluster.admin.createTopics(List.of(topic)).all());
    }

    private static TopicDescription describe(Cluster cluster, String topic) throws Exception {
        return Cluster.get(cluster.admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private static boolean exists(Cluster cluster, String topic) throws Exception {
        return Cluster.get(cluster.admin.listTopics().names()).contains(topic);
    }

    static Config configs(Cluster cluster, ConfigResource.Type type, String name) throws Exception {
        ConfigResource resource = new ConfigResource(type, name);
        return Cluster.get(cluster.admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private static void topics(Cluster cluster) throws Exception {
        String topic = cluster.topic(3);
        TopicDescription first = describe(cluster, topic);
        Check.equal(first.partitions().stream().map(one -> one.partition()).toList(), List.of(0, 1, 2), "partitions");
        Check.that(first.partitions().stream().allMatch(one -> one.leader() != null && one.replicas().size() == 1 && one.isr().size() == 1), "leaders and replicas");
        Check.that(!first.isInternal() && !first.topicId().equals(Uuid.ZERO_UUID), "a topic has an id of its own");
        Check.that(exists(cluster, topic), "the topic is listed");
        Check.equal(Cluster.get(cluster.admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(first.topicId()))).allTopicIds())
            .get(first.topicId()).name(), topic, "name of the topic with this id");
        Check.refusedAs(TopicExistsException.class, "a topic that exists", () -> createTopic(cluster, new NewTopic(topic, 1, (short) 1)));
        cluster.produce(Cluster.numbered(topic, 0, 3, "value"));
        Cluster.get(cluster.admin.deleteTopics(List.of(topic)).all());
        Check.eventually("the topic is gone", () -> !exists(cluster, topic));
        Check.refusedAs(UnknownTopicOrPartitionException.class, "deleting a topic that is gone", () -> Cluster.get(cluster.admin.deleteTopics(List.of(topic)).all()));
        cluster.create(new NewTopic(topic, 1, (short) 1));
        Check.equal(cluster.readToEnd(topic, 1, -1).size(), 0, "messages of a topic made again under its old name");
        Check.that(!describe(cluster, topic).topicId().equals(first.topicId()), "a topic made again has a new id");
    }

    private static void validateOnly(Cluster cluster) throws Exception {
        String topic = cluster.unique("validated");
        Cluster.get(cluster.admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all());
        Thread.sleep(300);
        Check.that(!exists(cluster, topic), "the topic was created");
    }

    private static void defaults(Cluster cluster) throws Exception {
        String topic = cluster.unique("defaults");
        cluster.create(new NewTopic(topic, Optional.empty(), Optional.empty()));
        TopicDescription found = describe(cluster, topic);
        Config broker = configs(cluster, ConfigResource.Type.BROKER, found.partitions().get(0).leader().idString());
        Check.equal(String.valueOf(found.partitions().size()), broker.get("num.partitions").value(), "partitions");
    }

    private static void partitions(Cluster cluster) throws Exception {
        String topic = cluster.topic(2);
        Cluster.get(cluster.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        Check.eventually("five partitions", () -> describe(cluster, topic).partitions().size() == 5);
        cluster.produce(Cluster.numbered(topic, 4, 5, "value"));
        Check.equal(cluster.readToEnd(topic, 5, -1).size(), 5, "messages");
        for (int total : new int[] {3, 5, 0}) {
            Check.refusedAs(InvalidPartitionsException.class, total + " partitions in all",
                () -> Cluster.get(cluster.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(total))).all()));
        }
        Check.refusedAs(UnknownTopicOrPartitionException.class, "partitions of a topic that is not",
            () -> Cluster.get(cluster.admin.createPartitions(Map.of(cluster.unique("missing"), NewPartitions.increaseTo(5))).all()));
    }

    private static void alter(Cluster cluster, String topic, AlterConfigOp... operations) throws Exception {
        Map<ConfigResource, Collection<AlterConfigOp>> changes = Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), List.of(operations));
        Cluster.get(cluster.admin.incrementalAlterConfigs(changes).all());
    }

    private static AlterConfigOp operation(String name, String value, AlterConfigOp.OpType type) {
        return new AlterConfigOp(new ConfigEntry(name, value), type);
    }

    private static void topicSettings(Cluster cluster) throws Exception {
        String topic = cluster.topic(1, Map.of("message.timestamp.type", "LogAppendTime"));
        Config found = configs(cluster, ConfigResource.Type.TOPIC, topic);
        Check.equal(found.get("message.timestamp.type").value(), "LogAppendTime", "message.timestamp.type");
        Check.equal(found.get("message.timestamp.type").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "its source");
        Map<String, String> defaults = Map.of("max.message.bytes", "1048588", "cleanup.policy", "delete", "compression.type", "producer");
        for (Map.Entry<String, String> one : defaults.entrySet()) {
            Check.equal(found.get(one.getKey()).value(), one.getValue(), one.getKey());
            Check.equal(found.get(one.getKey()).source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source of " + one.getKey());
            Check.that(!found.get(one.getKey()).isReadOnly() && !found.get(one.getKey()).isSensitive(), one.getKey() + " can be altered and seen");
        }
        alter(cluster, topic, operation("max.message.bytes", "2000", AlterConfigOp.OpType.SET),
            operation("message.timestamp.type", null, AlterConfigOp.OpType.DELETE));
        waitForSettings(cluster, topic, "2000", "CreateTime");
        Check.refusedAs(RecordTooLargeException.class, "a message above the altered limit", () -> cluster.produce(List.of(new ProducerRecord<>(topic, new byte[5000]))));
        alter(cluster, topic, operation("max.message.bytes", null, AlterConfigOp.OpType.DELETE));
        waitForSettings(cluster, topic, "1048588", "CreateTime");
        cluster.produce(List.of(new ProducerRecord<>(topic, new byte[5000])));
    }

    private static void waitForSettings(Cluster cluster, String topic, String limit, String kindOfTime) throws Exception {
        Check.eventually("a limit of " + limit + " and " + kindOfTime, () -> {
            Config found = configs(cluster, ConfigResource.Type.TOPIC, topic);
            return found.get("max.message.bytes").value().equals(limit) && found.get("message.timestamp.type").value().equals(kindOfTime);
        });
    }

    private static void badSettings(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        String[][] bad = {{"no.such.setting", "1"}, {"max.message.bytes", "many"}, {"max.message.bytes", "-5"}, {"cleanup.policy", "maybe"}};
        for (String[] pair : bad) {
            String what = pair[0] + "=" + pair[1];
            InvalidConfigurationException created = Check.refusedAs(InvalidConfigurationException.class, what + ", created",
                () -> createTopic(cluster, new NewTopic(cluster.unique("refused"), 1, (short) 1).configs(Map.of(pair[0], pair[1]))));
            Check.that(created.getMessage().contains(pair[0]), "the error does not name " + pair[0] + ": " + created.getMessage());
            InvalidConfigurationException altered = Check.refusedAs(InvalidConfigurationException.class, what + ", altered",
                () -> alter(cluster, topic, operation(pair[0], pair[1], AlterConfigOp.OpType.SET)));
            Check.that(altered.getMessage().contains(pair[0]), "the error does not name " + pair[0] + ": " + altered.getMessage());
        }
        Check.refusedAs(UnknownTopicOrPartitionException.class, "settings of a topic that is not",
            () -> configs(cluster, ConfigResource.Type.TOPIC, cluster.unique("missing")));
    }

    private static void brokerSettings(Cluster cluster) throws Exception {
        String node = Cluster.get(cluster.admin.describeCluster().nodes()).iterator().next().idString();
        Config found = configs(cluster, ConfigResource.Type.BROKER, node);
        Check.equal(found.get("group.min.session.timeout.ms").value(), "1000", "a setting given at the start");
        Check.equal(found.get("group.min.session.timeout.ms").source(), ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG, "its source");
        Map<String, String> expected = Map.of("message.max.bytes", "1048588", "num.partitions", "1", "group.max.session.timeout.ms", "1800000",
            "offsets.retention.minutes", "10080", "auto.create.topics.enable", "false");
        for (Map.Entry<String, String> one : expected.entrySet()) {
            Check.equal(found.get(one.getKey()).value(), one.getValue(), one.getKey());
        }
        Check.equal(found.get("offsets.retention.minutes").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source of a default");
    }

    private static void invalidTopics(Cluster cluster) throws Exception {
        for (String name : List.of("", ".", "..", "with space", "with/slash", "with:colon", "\u00fcmlaut", "x".repeat(250))) {
            Check.refusedAs(InvalidTopicException.class, "topic name '" + name + "'", () -> createTopic(cluster, new NewTopic(name, 1, (short) 1)));
        }
        cluster.create(new NewTopic((cluster.unique("longest") + "x".repeat(249)).substring(0, 249), 1, (short) 1));
        String stem = cluster.unique("dot").replace("-", "");
        cluster.create(new NewTopic(stem + ".a", 1, (short) 1));
        Check.refusedAs(InvalidTopicException.class, "a name that differs by dot and underscore only", () -> createTopic(cluster, new NewTopic(stem + "_a", 1, (short) 1)));
        String name = cluster.unique("counts");
        Check.refusedAs(InvalidPartitionsException.class, "no partitions", () -> createTopic(cluster, new NewTopic(name, 0, (short) 1)));
        Check.refusedAs(InvalidPartitionsException.class, "minus three partitions", () -> createTopic(cluster, new NewTopic(name, -3, (short) 1)));
        Check.refusedAs(InvalidReplicationFactorException.class, "three replicas on one node", () -> createTopic(cluster, new NewTopic(name, 1, (short) 3)));
        Check.refusedAs(InvalidReplicationFactorException.class, "no replicas", () -> createTopic(cluster, new NewTopic(name, 1, (short) 0)));
        Check.that(!exists(cluster, name), "a refused topic exists");
    }

    private static long deleteUpTo(Cluster cluster, TopicPartition partition, long offset) throws Exception {
        return Cluster.get(cluster.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(offset))).lowWatermarks().get(partition)).lowWatermark();
    }

    private static void deleteRecords(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        cluster.produce(Cluster.numbered(topic, 0, 20, "value"));
        List<String> left = IntStream.range(8, 20).mapToObj(number -> "value-" + number).toList();
        Check.equal(deleteUpTo(cluster, partition, 8), 8L, "new start");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, -1)), left, "messages left");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 3)), left, "from a deleted offset");
        Check.refusedAs(OffsetOutOfRangeException.class, "deleting beyond the end", () -> deleteUpTo(cluster, partition, 21));
        Check.equal(deleteUpTo(cluster, partition, 5), 8L, "start after deleting less");
        Check.equal(deleteUpTo(cluster, partition, -1), 20L, "start after deleting all");
        Check.equal(cluster.readToEnd(topic, 1, -1).size(), 0, "messages left");
        Check.equal(cluster.produce(Cluster.numbered(topic, 0, 1, "value")).get(0).offset(), 20L, "place of the next message");
    }

    private static void listOffsets(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        long start = 1_700_000_000_000L;
        for (long at : new long[] {1000, 5000, 3000, 4000}) {
            cluster.produce(List.of(new ProducerRecord<>(topic, 0, start + at, null, Cluster.bytes("x"))));
        }
        deleteUpTo(cluster, partition, 1);
        Check.equal(listed(cluster, partition, OffsetSpec.earliest()).offset(), 1L, "earliest");
        Check.equal(listed(cluster, partition, OffsetSpec.latest()).offset(), 4L, "latest");
        ListOffsetsResultInfo newest = listed(cluster, partition, OffsetSpec.maxTimestamp());
        Check.equal(List.of(newest.offset(), newest.timestamp()), List.of(1L, start + 5000), "newest time");
        ListOffsetsResultInfo byTime = listed(cluster, partition, OffsetSpec.forTimestamp(start + 3500));
        Check.equal(List.of(byTime.offset(), byTime.timestamp()), List.of(1L, start + 5000), "by time");
        Check.equal(listed(cluster, partition, OffsetSpec.forTimestamp(start + 9000)).offset(), -1L, "by a time after the last");
        Check.equal(listed(cluster, new TopicPartition(cluster.topic(1), 0), OffsetSpec.maxTimestamp()).offset(), -1L, "newest time of an empty topic");
    }

    private static ListOffsetsResultInfo listed(Cluster cluster, TopicPartition partition, OffsetSpec spec) throws Exception {
        return Cluster.get(cluster.admin.listOffsets(Map.of(partition, spec)).partitionResult(partition));
    }

    private static void cluster(Cluster cluster) throws Exception {
        DescribeClusterResult described = cluster.admin.describeCluster();
        List<Node> nodes = new ArrayList<>(Cluster.get(described.nodes()));
        Check.equal(nodes.stream().map(node -> node.host() + ":" + node.port()).toList(), List.of(cluster.bootstrap), "nodes");
        Check.equal(Cluster.get(described.controller()).id(), nodes.get(0).id(), "controller");
        Check.equal(Cluster.get(described.clusterId()).length(), 22, "length of the cluster id");
    }

    private static void logDirectories(Cluster cluster) throws Exception {
        String topic = cluster.topic(2);
        cluster.produce(List.of(new ProducerRecord<>(topic, 0, null, new byte[100_000])), "compression.type", "none");
        int node = Cluster.get(cluster.admin.describeCluster().nodes()).iterator().next().id();
        Check.eventually("both partitions are described", () -> directory(cluster, node).replicaInfos().keySet()
            .containsAll(List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1))));
        LogDirDescription only = directory(cluster, node);
        Check.that(only.replicaInfos().get(new TopicPartition(topic, 0)).size() >= 100_000, "size of a partition with 100 kB");
        Check.that(only.replicaInfos().get(new TopicPartition(topic, 1)).size() < 100_000, "size of an empty partition");
        Check.that(only.totalBytes().isPresent() && only.usableBytes().isPresent(), "size of the file system");
        Check.that(only.totalBytes().getAsLong() >= only.usableBytes().getAsLong() && only.usableBytes().getAsLong() > 0, "size of the file system");
    }

    private static LogDirDescription directory(Cluster cluster, int node) throws Exception {
        Map<String, LogDirDescription> found = Cluster.get(cluster.admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
        Check.equal(found.size(), 1, "log directories");
        LogDirDescription only = found.values().iterator().next();
        Check.equal(only.error(), null, "error");
        return only;
    }

    private static void unknownTopic(Cluster cluster) throws Exception {
        String missing = cluster.unique("missing");
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("max.block.ms", "2000")) {
            Check.refusedAs(TimeoutException.class, "a message to a topic that is not", () -> Cluster.send(producer, List.of(new ProducerRecord<>(missing, new byte[1]))));
        }
        Check.refusedAs(UnknownTopicOrPartitionException.class, "a topic that is not", () -> describe(cluster, missing));
        Check.that(!exists(cluster, missing), "the topic was made");
        String topic = cluster.topic(1);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("max.block.ms", "2000")) {
            Check.refusedAs(TimeoutException.class, "a message to a partition that is not", () -> Cluster.send(producer, Cluster.numbered(topic, 7, 1, "value")));
        }
    }
}
