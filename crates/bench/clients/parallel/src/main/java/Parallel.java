import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Confluent's parallel consumer in the place of one side of consume_throughput.
 *
 * <p>Arguments: address, topic, group, records, milliseconds of each handler, handlers at once. Ordered by key; from the first record's
 * handler to the end of the last one's. Prints one line as that program's own sides do: records, seconds, seconds of processor, and
 * memory of the process in KiB: at most, when half was done, and when all was.
 */
public final class Parallel {
  private static final double TICKS_PER_SECOND = 100.0;

  public static void main(String[] arguments) throws Exception {
    String topic = arguments[1];
    long records = Long.parseLong(arguments[3]);
    long handlerMillis = Long.parseLong(arguments[4]);
    Properties properties = new Properties();
    properties.put("bootstrap.servers", arguments[0]);
    properties.put("group.id", arguments[2]);
    properties.put("enable.auto.commit", "false");
    properties.put("auto.offset.reset", "earliest");
    properties.put("key.deserializer", StringDeserializer.class.getName());
    properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
    ParallelStreamProcessor<String, byte[]> processor =
        ParallelStreamProcessor.createEosStreamProcessor(
            ParallelConsumerOptions.<String, byte[]>builder()
                .consumer(new KafkaConsumer<>(properties))
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(Integer.parseInt(arguments[5]))
                .build());
    AtomicLong began = new AtomicLong();
    AtomicLong processorBefore = new AtomicLong();
    AtomicLong done = new AtomicLong();
    AtomicLong half = new AtomicLong();
    AtomicLong ended = new AtomicLong();
    CountDownLatch all = new CountDownLatch(1);
    processor.subscribe(List.of(topic));
    processor.poll(
        context -> {
          if (began.get() == 0 && began.compareAndSet(0, System.nanoTime())) {
            processorBefore.set(processorTicks());
          }
          sleep(handlerMillis);
          long count = done.incrementAndGet();
          if (count == (records + 1) / 2) {
            half.set(memory("VmRSS:"));
          }
          if (count == records) {
            ended.set(System.nanoTime());
            all.countDown();
          }
        });
    all.await();
    double seconds = (ended.get() - began.get()) / 1e9;
    double processorSeconds = (processorTicks() - processorBefore.get()) / TICKS_PER_SECOND;
    System.out.println(
        String.format(
            Locale.ROOT,
            "%d %.6f %.2f %d %d %d",
            done.get(), seconds, processorSeconds, memory("VmHWM:"), half.get(), memory("VmRSS:")));
    processor.closeDrainFirst();
  }

  private static void sleep(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Memory of this process in KiB, as the system counts it: heap, code and all. */
  private static long memory(String name) {
    for (String line : read("/proc/self/status").split("\n")) {
      if (line.startsWith(name)) {
        return Long.parseLong(line.substring(name.length()).replace("kB", "").trim());
      }
    }
    throw new IllegalStateException(name + " is missing");
  }

  /** What this process has used of all processors. */
  private static long processorTicks() {
    String stat = read("/proc/self/stat");
    String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
    return Long.parseLong(fields[11]) + Long.parseLong(fields[12]);
  }

  private static String read(String file) {
    try {
      return Files.readString(Path.of(file));
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }
}
