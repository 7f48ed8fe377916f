import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;

/**
 * Threads that publish one message at a time to RocketMQ and wait until it is durable.
 *
 * <p>Takes the flags of the Go client, and speaks as it does: warms up, prints "warm", waits for a line, runs,
 * prints one JSON line.
 */
public final class Waiting {
  private static final int LATENCIES_MAX = 4_000_000;

  public static void main(String[] arguments) throws Exception {
    // The client library's logging prints to standard output, which is ours.
    PrintStream answers = System.out;
    System.setOut(System.err);
    Map<String, String> flags = new HashMap<>();
    for (int index = 0; index + 1 < arguments.length; index += 2) {
      flags.put(arguments[index], arguments[index + 1]);
    }
    byte[] value = new byte[Integer.parseInt(flags.getOrDefault("-bytes", "1024"))];
    new Random(1).nextBytes(value);
    int clients = Integer.parseInt(flags.getOrDefault("-clients", "64"));
    String topic = flags.getOrDefault("-topic", "bench");

    DefaultMQProducer producer = new DefaultMQProducer("bench");
    producer.setNamesrvAddr(flags.get("-address"));
    producer.setSendMsgTimeout(30_000);
    producer.setRetryTimesWhenSendFailed(0);
    producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
    producer.start();
    try {
      run(producer, topic, value, clients, Long.parseLong(flags.getOrDefault("-warm-ms", "2000")));
      answers.println("warm");
      if (new BufferedReader(new InputStreamReader(System.in)).readLine() == null) {
        return;
      }
      long measure = Long.parseLong(flags.getOrDefault("-measure-ms", "6000"));
      answers.println(run(producer, topic, value, clients, measure));
    } finally {
      producer.shutdown();
    }
  }

  private static String run(DefaultMQProducer producer, String topic, byte[] value, int clients, long milliseconds)
      throws Exception {
    long[][] waits = new long[clients][];
    AtomicReference<Throwable> failed = new AtomicReference<>();
    Thread[] threads = new Thread[clients];
    long start = System.nanoTime();
    for (int client = 0; client < clients; client++) {
      int own = client;
      threads[client] =
          new Thread(
              () -> {
                try {
                  waits[own] = publish(producer, topic, value, start + milliseconds * 1_000_000L, failed);
                } catch (Throwable error) {
                  failed.compareAndSet(null, error);
                }
              });
      threads[client].start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    if (failed.get() != null) {
      throw new IllegalStateException("a message was not stored durably", failed.get());
    }
    long[] all = Arrays.stream(waits).flatMapToLong(Arrays::stream).sorted().toArray();
    return String.format(
        java.util.Locale.ROOT,
        "{\"records\":%d,\"seconds\":%f,\"p50_us\":%f,\"p99_us\":%f}",
        all.length, seconds, at(all, 0.5), at(all, 0.99));
  }

  private static long[] publish(
      DefaultMQProducer producer, String topic, byte[] value, long deadline, AtomicReference<Throwable> failed)
      throws Exception {
    long[] waits = new long[1024];
    int count = 0;
    while (System.nanoTime() < deadline && failed.get() == null && count < LATENCIES_MAX) {
      long sent = System.nanoTime();
      SendResult result = producer.send(new Message(topic, value));
      if (result.getSendStatus() != SendStatus.SEND_OK) {
        throw new IllegalStateException("the broker answered " + result.getSendStatus());
      }
      if (count == waits.length) {
        waits = Arrays.copyOf(waits, count * 2);
      }
      waits[count++] = System.nanoTime() - sent;
    }
    return Arrays.copyOf(waits, count);
  }

  private static double at(long[] sorted, double share) {
    return sorted.length == 0 ? 0 : sorted[(int) (share * (sorted.length - 1))] / 1e3;
  }
}
