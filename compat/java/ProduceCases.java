import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/** Producing: codecs, keys, headers, nulls, acknowledgements, idempotence, sizes, times. */
final class ProduceCases {
    private ProduceCases() {}

    static void register(Suite suite) {
        suite.add("every_codec_reads_back_as_sent", ProduceCases::everyCodec);
        suite.add("keys_headers_and_nulls_read_back_as_sent", ProduceCases::keysHeadersAndNulls);
        suite.add("every_level_of_acknowledgement_stores_the_messages", ProduceCases::acknowledgements);
        suite.add("idempotent_produce_stores_each_message_once_in_order", ProduceCases::idempotent);
        suite.add("times_are_those_of_the_producer_or_of_the_broker_as_the_topic_says", ProduceCases::times);
        suite.add("messages_up_to_the_limit_are_stored_and_larger_ones_refused", ProduceCases::sizes);
        suite.add("the_limit_of_a_topic_goes_before_that_of_the_broker", ProduceCases::limitOfTopic);
    }

    private static void everyCodec(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        List<String> expected = new ArrayList<>();
        for (String codec : Cluster.CODECS) {
            List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
            for (int number = 0; number < 200; number++) {
                String value = codec + "-" + number + "-" + "abc".repeat(100);
                records.add(new ProducerRecord<>(topic, Cluster.bytes("k" + number), Cluster.bytes(value)));
                expected.add("k" + number + "=" + value);
            }
            List<RecordMetadata> places = cluster.produce(records, "compression.type", codec, "linger.ms", "20");
            Check.equal(places.get(0).offset(), (long) expected.size() - 200, "first offset of " + codec);
            Check.equal(places.get(199).offset(), (long) expected.size() - 1, "last offset of " + codec);
        }
        List<String> got = cluster.readToEnd(topic, 1, -1).stream().map(one -> Cluster.text(one.key()) + "=" + Cluster.text(one.value())).toList();
        Check.equal(got, expected, "messages");
    }

    private static List<Header> headers() {
        return List.of(new RecordHeader("trace", Cluster.bytes("1")), new RecordHeader("trace", Cluster.bytes("2")),
            new RecordHeader("empty", new byte[0]), new RecordHeader("null", (byte[]) null), new RecordHeader("\u00fc", new byte[] {0, -1, 127}),
            new RecordHeader("trace", Cluster.bytes("1")));
    }

    private static void keysHeadersAndNulls(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        byte[] all = new byte[256];
        for (int at = 0; at < all.length; at++) {
            all[at] = (byte) at;
        }
        List<ProducerRecord<byte[], byte[]>> records = List.of(
            new ProducerRecord<>(topic, 0, null, Cluster.bytes("no key")),
            new ProducerRecord<>(topic, 0, new byte[0], Cluster.bytes("empty key")),
            new ProducerRecord<>(topic, 0, Cluster.bytes("tombstone"), null),
            new ProducerRecord<>(topic, 0, Cluster.bytes("empty value"), new byte[0]),
            new ProducerRecord<>(topic, 0, null, null),
            new ProducerRecord<>(topic, 0, Cluster.bytes("\u2713"), all, headers()));
        for (String codec : Cluster.CODECS) {
            cluster.produce(records, "compression.type", codec, "linger.ms", "20");
        }
        List<ConsumerRecord<byte[], byte[]>> got = cluster.readToEnd(topic, 1, -1);
        Check.equal(got.size(), records.size() * Cluster.CODECS.length, "messages");
        for (int at = 0; at < got.size(); at++) {
            ProducerRecord<byte[], byte[]> sent = records.get(at % records.size());
            Check.equal(got.get(at).key(), sent.key(), "key of message " + at);
            Check.equal(got.get(at).value(), sent.value(), "value of message " + at);
            Check.equal(Arrays.asList(got.get(at).headers().toArray()), Arrays.asList(sent.headers().toArray()), "headers of message " + at);
        }
    }

    private static void acknowledgements(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        List<String> expected = new ArrayList<>();
        for (String level : List.of("0", "1", "all")) {
            cluster.produce(Cluster.numbered(topic, 0, 50, "acks-" + level), "acks", level, "enable.idempotence", "false");
            for (int number = 0; number < 50; number++) {
                expected.add("acks-" + level + "-" + number);
            }
            // Without acknowledgement the next producer could overtake the messages on their way.
            Check.eventually("messages sent with acks=" + level + " arrive", () -> cluster.readToEnd(topic, 1, -1).size() == expected.size());
        }
        Check.equal(Cluster.values(cluster.readToEnd(topic, 1, -1)), expected, "messages");
    }

    private static void idempotent(Cluster cluster) throws Exception {
        String topic = cluster.topic(3);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 2000; number++) {
            records.add(new ProducerRecord<>(topic, number % 3, null, Cluster.bytes("" + number)));
        }
        cluster.produce(records, "enable.idempotence", "true", "batch.size", "200", "linger.ms", "1");
        List<ConsumerRecord<byte[], byte[]>> got = cluster.readToEnd(topic, 3, -1);
        for (int partition = 0; partition < 3; partition++) {
            int wanted = partition;
            List<String> stored = got.stream().filter(one -> one.partition() == wanted).map(one -> Cluster.text(one.value())).toList();
            List<String> sent = records.stream().filter(one -> one.partition() == wanted).map(one -> Cluster.text(one.value())).toList();
            Check.equal(stored, sent, "partition " + partition);
        }
    }

    private static void times(Cluster cluster) throws Exception {
        String byProducer = cluster.topic(1);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 5; number++) {
            records.add(new ProducerRecord<>(byProducer, 0, 1_600_000_000_000L + number * 1000, null, Cluster.bytes("x")));
        }
        cluster.produce(records);
        for (ConsumerRecord<byte[], byte[]> got : cluster.readToEnd(byProducer, 1, -1)) {
            Check.equal(got.timestampType(), TimestampType.CREATE_TIME, "kind of time");
            Check.equal(got.timestamp(), 1_600_000_000_000L + got.offset() * 1000, "time");
        }
        String byBroker = cluster.topic(1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        RecordMetadata place = cluster.produce(List.of(new ProducerRecord<>(byBroker, 0, 1_600_000_000_000L, null, Cluster.bytes("x")))).get(0);
        long after = System.currentTimeMillis();
        ConsumerRecord<byte[], byte[]> got = cluster.readToEnd(byBroker, 1, -1).get(0);
        Check.equal(got.timestampType(), TimestampType.LOG_APPEND_TIME, "kind of time");
        Check.that(before <= got.timestamp() && got.timestamp() <= after, "append time " + got.timestamp() + " is not within " + before + ".." + after);
        Check.equal(place.timestamp(), got.timestamp(), "time that the producer was told");
    }

    private static void sizes(Cluster cluster) throws Exception {
        String topic = cluster.topic(1);
        byte[] large = new byte[1_000_000], tooLarge = new byte[1_100_000];
        new Random(1).nextBytes(large);
        new Random(2).nextBytes(tooLarge);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("max.request.size", "10000000", "compression.type", "none")) {
            Cluster.send(producer, List.of(new ProducerRecord<>(topic, large)));
            Check.refusedAs(RecordTooLargeException.class, "a message above message.max.bytes",
                () -> Cluster.send(producer, List.of(new ProducerRecord<>(topic, tooLarge))));
            Cluster.send(producer, List.of(new ProducerRecord<>(topic, Cluster.bytes("next"))));
        }
        List<ConsumerRecord<byte[], byte[]>> got = cluster.readToEnd(topic, 1, -1);
        Check.equal(got.size(), 2, "messages");
        Check.equal(got.get(0).value(), large, "the large message");
        Check.equal(Cluster.text(got.get(1).value()), "next", "the message after the refused one");
    }

    private static void limitOfTopic(Cluster cluster) throws Exception {
        String topic = cluster.topic(1, Map.of("max.message.bytes", "2000"));
        cluster.produce(List.of(new ProducerRecord<>(topic, new byte[1500])));
        Check.refusedAs(RecordTooLargeException.class, "a message above max.message.bytes",
            () -> cluster.produce(List.of(new ProducerRecord<>(topic, new byte[2500]))));
    }
}
