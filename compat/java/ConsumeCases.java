import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.TopicPartition;

/** Consuming without a group: positions, times, limits. */
final class ConsumeCases {
    private ConsumeCases() {}

    static void register(Suite suite) {
        suite.add("consume_from_the_start_from_an_offset_and_from_the_end", ConsumeCases::positions);
        suite.add("consume_from_a_time", ConsumeCases::fromTime);
        suite.add("an_offset_out_of_range_follows_auto_offset_reset", ConsumeCases::outOfRange);
        suite.add("a_waiting_fetch_returns_as_soon_as_a_message_arrives", ConsumeCases::longPoll);
        suite.add("fetch_limits_below_one_message_still_make_progress", ConsumeCases::smallLimits);
        suite.add("many_partitions_of_several_topics_are_read_together", ConsumeCases::manyPartitions);
        suite.add("a_pattern_finds_topics_that_come_later", ConsumeCases::pattern);
    }

    private static List<String> everything(int from, int to) {
        return IntStream.range(from, to).mapToObj(number -> "value-" + number).toList();
    }

    private static void positions(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        cluster.produce(Cluster.numbered(topic, 0, 100, "value"), "linger.ms", "20");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, -1)), everything(0, 100), "from the start");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 37)), everything(37, 100), "from offset 37, within a batch");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 99)), everything(99, 100), "from the last offset");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 100)), everything(0, 0), "from the end");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"))) {
            Check.equal(reader.beginningOffsets(List.of(partition)), Map.of(partition, 0L), "beginning");
            Check.equal(reader.endOffsets(List.of(partition)), Map.of(partition, 100L), "end");
            reader.assign(List.of(partition));
            reader.seekToEnd(List.of(partition));
            Check.equal(reader.position(partition), 100L, "position at the end");
        }
    }

    private static void fromTime(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        long start = 1_700_000_000_000L;
        for (int batch = 0; batch < 5; batch++) {
            List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
            for (int number = 0; number < 10; number++) {
                records.add(new ProducerRecord<>(topic, 0, start + batch * 10_000 + number * 100, null, Cluster.bytes(batch + "-" + number)));
            }
            cluster.produce(records, "linger.ms", "20", "compression.type", "lz4");
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        long[][] wanted = {{0, 0}, {start, 0}, {start + 20_000, 20}, {start + 20_250, 23}, {start + 15_000, 20}, {start + 40_900, 49}};
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"))) {
            for (long[] pair : wanted) {
                OffsetAndTimestamp found = reader.offsetsForTimes(Map.of(partition, pair[0])).get(partition);
                Check.equal(found.offset(), pair[1], "offset for time " + pair[0]);
                Check.equal(found.timestamp(), start + pair[1] / 10 * 10_000 + pair[1] % 10 * 100, "time of offset " + pair[1]);
            }
            Check.equal(reader.offsetsForTimes(Map.of(partition, start + 50_000)).get(partition), null, "a time after the last message");
        }
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 23)).get(0), "2-3", "first message from that time on");
    }

    private static void outOfRange(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        cluster.produce(Cluster.numbered(topic, 0, 10, "value"));
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 5000, "auto.offset.reset", "earliest")), everything(0, 10), "reset to the start");
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, 5000, "auto.offset.reset", "latest")), everything(0, 0), "reset to the end");
        Check.refusedAs(OffsetOutOfRangeException.class, "an offset out of range", () -> cluster.readToEnd(topic, 1, 5000, "auto.offset.reset", "none"));
    }

    private static void longPoll(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        long closing;
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"), "fetch.max.wait.ms", "8000")) {
            reader.assign(List.of(partition));
            reader.seek(partition, 0);
            Check.equal(reader.poll(Duration.ofMillis(800)).count(), 0, "messages of an empty topic");
            long sent = System.nanoTime();
            cluster.produce(Cluster.numbered(topic, 0, 1, "value"));
            ConsumerRecords<byte[], byte[]> got = reader.poll(Duration.ofSeconds(20));
            Check.equal(got.count(), 1, "messages");
            long millis = (System.nanoTime() - sent) / 1_000_000;
            Check.that(millis < 4000, "the message came after " + millis + " ms, the fetch waited on");
            closing = System.nanoTime();
        }
        long millis = (System.nanoTime() - closing) / 1_000_000;
        Check.that(millis < 12_000, "closing took " + millis + " ms, longer than the one fetch that was under way");
    }

    private static void smallLimits(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 20; number++) {
            byte[] value = new byte[50_000];
            value[0] = (byte) number;
            records.add(new ProducerRecord<>(topic, value));
        }
        cluster.produce(records, "compression.type", "none");
        List<ConsumerRecord<byte[], byte[]>> got = cluster.readToEnd(topic, 1, -1, "max.partition.fetch.bytes", "1000", "fetch.max.bytes", "2000");
        Check.equal(got.stream().map(one -> (int) one.value()[0]).toList(), IntStream.range(0, 20).boxed().toList(), "messages");
    }

    private static void manyPartitions(Cluster cluster) throws Exception {
        List<TopicPartition> all = new ArrayList<>();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int count = 0; count < 3; count++) {
            String topic = cluster.topic(8);
            for (int number = 0; number < 160; number++) {
                records.add(new ProducerRecord<>(topic, number % 8, null, Cluster.bytes("" + number)));
            }
            for (int partition = 0; partition < 8; partition++) {
                all.add(new TopicPartition(topic, partition));
            }
        }
        cluster.produce(records, "linger.ms", "5");
        Map<TopicPartition, List<String>> got = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"))) {
            reader.assign(all);
            reader.seekToBeginning(all);
            int[] count = {0};
            Check.eventually("all messages", () -> {
                for (ConsumerRecord<byte[], byte[]> one : reader.poll(Duration.ofMillis(200))) {
                    got.computeIfAbsent(new TopicPartition(one.topic(), one.partition()), any -> new ArrayList<>()).add(Cluster.text(one.value()));
                    count[0]++;
                }
                return count[0] >= records.size();
            });
        }
        for (TopicPartition one : all) {
            List<String> expected = IntStream.range(0, 20).mapToObj(number -> "" + (number * 8 + one.partition())).toList();
            Check.equal(got.get(one), expected, one.toString());
        }
    }

    private static void pattern(Cluster cluster) throws Exception {
        String stem = cluster.unique("pattern");
        try (KafkaConsumer<byte[], byte[]> reader = cluster.consumer(cluster.unique("group"), "metadata.max.age.ms", "500")) {
            reader.subscribe(Pattern.compile(Pattern.quote(stem) + "-.*"));
            for (int number = 0; number < 2; number++) {
                String topic = stem + "-" + number;
                cluster.create(new NewTopic(topic, 1, (short) 1));
                cluster.produce(List.of(new ProducerRecord<>(topic, Cluster.bytes(topic))));
                List<String> seen = new ArrayList<>();
                Check.eventually("the message of topic number " + number, () -> {
                    reader.poll(Duration.ofMillis(200)).forEach(one -> seen.add(Cluster.text(one.value())));
                    return seen.contains(topic);
                });
            }
        }
    }
}
