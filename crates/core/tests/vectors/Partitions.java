import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/** Reads keys in hex, one a line; says what Kafka's own Java client makes of each: hash, and its partition of 6, 100 and 1,000,003. */
public final class Partitions {
    public static void main(String[] arguments) throws Exception {
        BufferedReader keys = new BufferedReader(new InputStreamReader(System.in));
        for (String line = keys.readLine(); line != null; line = keys.readLine()) {
            byte[] key = HexFormat.of().parseHex(line);
            System.out.println(
                line + "," + Integer.toUnsignedString(Utils.murmur2(key))
                    + "," + BuiltInPartitioner.partitionForKey(key, 6)
                    + "," + BuiltInPartitioner.partitionForKey(key, 100)
                    + "," + BuiltInPartitioner.partitionForKey(key, 1_000_003));
        }
    }
}
