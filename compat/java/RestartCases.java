import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What is left after the broker was killed (kill -9) and started again. */
final class RestartCases {
    private RestartCases() {}

    static void register(Suite suite) {
        suite.addRestart("messages_commits_and_topics_survive_a_killed_broker", RestartCases::everythingSurvives);
        suite.addRestart("a_group_goes_on_through_a_killed_broker", RestartCases::groupGoesOn);
        suite.addRestart("an_idempotent_producer_goes_on_through_a_killed_broker", RestartCases::producerGoesOn);
    }

    private static TopicDescription describe(Cluster cluster, String topic) throws Exception {
        return Cluster.get(cluster.admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private static Suite.Case everythingSurvives(Cluster cluster) throws Exception {
        String topic = cluster.topic(2, Map.of("max.message.bytes", "54321")), group = cluster.unique("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        for (String codec : List.of("none", "zstd")) {
            cluster.produce(Cluster.numbered(topic, 0, 50, codec), "compression.type", codec, "linger.ms", "20");
        }
        Cluster.get(cluster.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).all());
        Cluster.get(cluster.admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(42, "kept"))).all());
        TopicDescription before = describe(cluster, topic);
        Thread.sleep(1000); // Apache Kafka writes the new start down at intervals, here of half a second
        return again -> {
            TopicDescription after = describe(again, topic);
            Check.equal(List.of(after.topicId(), after.partitions().size()), List.of(before.topicId(), 2), "topic");
            Check.equal(AdminCases.configs(again, ConfigResource.Type.TOPIC, topic).get("max.message.bytes").value(), "54321", "setting of the topic");
            List<String> everything = Stream.of("none", "zstd").flatMap(codec -> IntStream.range(0, 50).mapToObj(number -> codec + "-" + number)).toList();
            Check.equal(Cluster.values(again.readToEnd(topic, 2, -1)), everything.subList(5, 100), "messages");
            OffsetAndMetadata stored = Cluster.get(again.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition);
            Check.equal(List.of(stored.offset(), stored.metadata()), List.of(42L, "kept"), "committed offset");
            Member member = new Member(again, group, List.of(topic));
            Member.waitForSeen(List.of(member), everything.subList(42, 100));
            Check.equal(member.seen, everything.subList(42, 100), "messages from the commit on");
            member.leave();
            Check.equal(again.produce(Cluster.numbered(topic, 0, 1, "value")).get(0).offset(), 100L, "place of the next message");
        };
    }

    private static List<ProducerRecord<byte[], byte[]>> spread(String topic, String prefix, int partitions, int from, int to) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = from; number < to; number++) {
            records.add(new ProducerRecord<>(topic, number % partitions, null, Cluster.bytes(prefix + number)));
        }
        return records;
    }

    private static List<String> valuesOf(List<ProducerRecord<byte[], byte[]>> records) {
        return records.stream().map(one -> Cluster.text(one.value())).toList();
    }

    private static Suite.Case groupGoesOn(Cluster cluster) throws Exception {
        String topic = cluster.topic(6), group = cluster.unique("group");
        List<Member> members = IntStream.range(0, 3).mapToObj(any -> new Member(cluster, group, List.of(topic), "session.timeout.ms", "20000")).toList();
        Member.waitForShare(members, 6);
        KafkaProducer<byte[], byte[]> producer = cluster.producer();
        List<ProducerRecord<byte[], byte[]>> first = spread(topic, "before-", 6, 0, 60);
        Cluster.send(producer, first);
        Member.waitForSeen(members, valuesOf(first));
        return again -> {
            List<ProducerRecord<byte[], byte[]>> second = spread(topic, "after-", 6, 0, 60);
            Cluster.send(producer, second);
            Member.waitForSeen(members, valuesOf(second));
            for (Member member : members) {
                member.leave();
            }
            producer.close();
        };
    }

    private static Suite.Case producerGoesOn(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        KafkaProducer<byte[], byte[]> producer = cluster.producer("enable.idempotence", "true");
        Cluster.send(producer, spread(topic, "", 1, 0, 100));
        return again -> {
            Cluster.send(producer, spread(topic, "", 1, 100, 200));
            producer.close();
            Check.equal(Cluster.values(again.readToEnd(topic, 1, -1)), IntStream.range(0, 200).mapToObj(number -> "" + number).toList(), "messages");
        };
    }
}
