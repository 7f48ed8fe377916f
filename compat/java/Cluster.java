import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The server under test, and what the cases share. */
final class Cluster implements AutoCloseable {
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};

    final String bootstrap;
    final Admin admin;

    Cluster(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(common());
    }

    @Override
    public void close() {
        admin.close(Duration.ofSeconds(2));
    }

    String unique(String stem) {
        return stem + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    private Properties common() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("reconnect.backoff.max.ms", "500");
        return settings;
    }

    /** Creates a topic and waits until the broker tells of it. */
    String topic(int partitions, Map<String, String> configs) throws Exception {
        String name = unique("topic");
        create(new NewTopic(name, partitions, (short) 1).configs(configs));
        return name;
    }

    String topic(int partitions) throws Exception {
        return topic(partitions, Map.of());
    }

    void create(NewTopic topic) throws Exception {
        get(admin.createTopics(List.of(topic)).all());
        Check.eventually("topic " + topic.name() + " appears", () -> {
            try {
                return !get(admin.describeTopics(List.of(topic.name())).allTopicNames()).isEmpty();
            } catch (ExecutionException error) {
                if (error.getCause() instanceof UnknownTopicOrPartitionException) {
                    return false;
                }
                throw error;
            }
        });
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(Check.SECONDS_MAX, TimeUnit.SECONDS);
    }

    /** A producer; settings are pairs of name and value. */
    KafkaProducer<byte[], byte[]> producer(String... settings) {
        Properties all = common();
        all.put("linger.ms", "0");
        return new KafkaProducer<>(with(all, settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** A consumer that commits nothing by itself. */
    KafkaConsumer<byte[], byte[]> consumer(String group, String... settings) {
        Properties all = common();
        all.put("group.id", group);
        all.put("enable.auto.commit", "false");
        all.put("auto.offset.reset", "earliest");
        all.put("fetch.max.wait.ms", "100");
        all.put("heartbeat.interval.ms", "500");
        return new KafkaConsumer<>(with(all, settings), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static Properties with(Properties all, String... settings) {
        for (int at = 0; at < settings.length; at += 2) {
            all.put(settings[at], settings[at + 1]);
        }
        return all;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** Numbered messages for one partition. */
    static List<ProducerRecord<byte[], byte[]>> numbered(String topic, int partition, int count, String prefix) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            records.add(new ProducerRecord<>(topic, partition, null, bytes(prefix + "-" + number)));
        }
        return records;
    }

    /** Sends all and waits; returns where each one is stored. */
    static List<RecordMetadata> send(KafkaProducer<byte[], byte[]> producer, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (ProducerRecord<byte[], byte[]> one : records) {
            futures.add(producer.send(one));
        }
        producer.flush();
        List<RecordMetadata> places = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) {
            places.add(get(future));
        }
        return places;
    }

    List<RecordMetadata> produce(List<ProducerRecord<byte[], byte[]>> records, String... settings) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            return send(producer, records);
        }
    }

    /** Everything from an offset (-1: the start) to the end of each partition. */
    List<ConsumerRecord<byte[], byte[]>> readToEnd(String topic, int partitions, long start, String... settings) throws Exception {
        List<TopicPartition> all = new ArrayList<>();
        for (int number = 0; number < partitions; number++) {
            all.add(new TopicPartition(topic, number));
        }
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> reader = consumer(unique("reader"), settings)) {
            reader.assign(all);
            Map<TopicPartition, Long> ends = new HashMap<>(reader.endOffsets(all));
            if (start < 0) {
                reader.seekToBeginning(all);
            } else {
                all.forEach(one -> reader.seek(one, start));
            }
            long deadline = System.nanoTime() + Check.SECONDS_MAX * 1_000_000_000L;
            // The position is asked for after a poll: it then is where an offset out of range was reset to.
            do {
                Check.that(System.nanoTime() < deadline, records.size() + " messages and no end");
                reader.poll(Duration.ofMillis(200)).forEach(records::add);
            } while (ends.entrySet().stream().anyMatch(end -> reader.position(end.getKey()) != end.getValue()));
        }
        return records;
    }

    static List<String> values(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(one -> text(one.value())).toList();
    }
}
