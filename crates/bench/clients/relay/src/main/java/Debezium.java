import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.DebeziumEngine.ChangeConsumer;
import io.debezium.engine.DebeziumEngine.RecordCommitter;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.source.SourceRecord;

/**
 * Debezium's embedded engine on a table of its outbox router's default layout, sending to Kafka.
 *
 * <p>Arguments: port of PostgreSQL on 127.0.0.1, address of Kafka, milliseconds between polls, records of a batch, a folder for the offsets.
 * Runs until it is killed. A batch counts as processed when Kafka has acknowledged all of it; while that is waited for, the next batch is
 * being sent. Records come as Connect's own, so that nothing is converted to JSON and back.
 */
public final class Debezium implements ChangeConsumer<RecordChangeEvent<SourceRecord>> {
  /** What has been sent and is not acknowledged yet, at most a batch. */
  private record Sent(
      List<RecordChangeEvent<SourceRecord>> records, CountDownLatch acknowledged, AtomicReference<Exception> failure) {}

  private final KafkaProducer<byte[], byte[]> producer;
  private Sent before;

  private Debezium(String kafka) {
    Properties properties = new Properties();
    properties.put("bootstrap.servers", kafka);
    properties.put("acks", "all");
    properties.put("enable.idempotence", "true");
    properties.put("linger.ms", "0");
    properties.put("batch.size", "131072");
    producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
  }

  public static void main(String[] arguments) throws Exception {
    Properties properties = new Properties();
    properties.put("name", "bench");
    properties.put("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
    properties.put("topic.prefix", "bench");
    properties.put("database.hostname", "127.0.0.1");
    properties.put("database.port", arguments[0]);
    properties.put("database.user", "postgres");
    properties.put("database.password", "");
    properties.put("database.dbname", "postgres");
    properties.put("plugin.name", "pgoutput");
    properties.put("slot.name", "bench_debezium");
    properties.put("publication.name", "bench_debezium");
    properties.put("publication.autocreate.mode", "filtered");
    properties.put("table.include.list", "public.outbox");
    properties.put("snapshot.mode", "no_data");
    properties.put("tombstones.on.delete", "false");
    properties.put("poll.interval.ms", arguments[2]);
    properties.put("max.batch.size", arguments[3]);
    properties.put("max.queue.size", Integer.toString(4 * Integer.parseInt(arguments[3])));
    properties.put("offset.storage", "org.apache.kafka.connect.storage.FileOffsetBackingStore");
    properties.put("offset.storage.file.filename", arguments[4] + "/offsets");
    properties.put("transforms", "outbox");
    properties.put("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter");
    properties.put("transforms.outbox.route.topic.replacement", "${routedByValue}");
    AtomicReference<Throwable> failure = new AtomicReference<>();
    try (DebeziumEngine<RecordChangeEvent<SourceRecord>> engine =
        DebeziumEngine.create(ChangeEventFormat.of(Connect.class))
            .using(properties)
            .using(
                (success, message, error) -> {
                  if (!success) {
                    failure.set(error == null ? new IllegalStateException(message) : error);
                  }
                })
            .notifying(new Debezium(arguments[1]))
            .build()) {
      engine.run();
    }
    if (failure.get() != null) {
      failure.get().printStackTrace();
      System.exit(1);
    }
  }

  @Override
  public void handleBatch(
      List<RecordChangeEvent<SourceRecord>> records, RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
      throws InterruptedException {
    Sent sent = new Sent(records, new CountDownLatch(records.size()), new AtomicReference<>());
    for (RecordChangeEvent<SourceRecord> event : records) {
      producer.send(
          message(event.record()),
          (metadata, exception) -> {
            if (exception != null) {
              sent.failure().set(exception);
            }
            sent.acknowledged().countDown();
          });
    }
    if (before != null) {
      settle(before, committer);
    }
    before = sent;
  }

  private static void settle(Sent sent, RecordCommitter<RecordChangeEvent<SourceRecord>> committer) throws InterruptedException {
    if (!sent.acknowledged().await(2, TimeUnit.MINUTES) || sent.failure().get() != null) {
      throw new IllegalStateException("Kafka did not acknowledge a batch", sent.failure().get());
    }
    for (RecordChangeEvent<SourceRecord> event : sent.records()) {
      committer.markProcessed(event);
    }
    committer.markBatchFinished();
  }

  private static ProducerRecord<byte[], byte[]> message(SourceRecord record) {
    Headers headers = new RecordHeaders();
    for (Header header : record.headers()) {
      headers.add(header.key(), String.valueOf(header.value()).getBytes(StandardCharsets.UTF_8));
    }
    byte[] key = ((String) record.key()).getBytes(StandardCharsets.UTF_8);
    byte[] value = ((String) record.value()).getBytes(StandardCharsets.UTF_8);
    return new ProducerRecord<>(record.topic(), null, null, key, value, headers);
  }
}
