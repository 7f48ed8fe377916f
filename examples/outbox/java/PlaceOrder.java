import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;

/**
 * Places an order, and writes the message about it in the same transaction: both or neither.
 *
 * <pre>
 *   java -cp 'drivers/*' PlaceOrder.java 'jdbc:postgresql://127.0.0.1/shop?user=app' 17 100
 *   java -cp 'drivers/*' PlaceOrder.java 'jdbc:postgresql://127.0.0.1/shop?user=app' 18 100 --fail
 * </pre>
 *
 * <p>With --fail something goes wrong before the commit. The tables are made by {@code baton outbox init}, and {@code baton relay} brings
 * what was committed to the engine.
 */
public final class PlaceOrder {
  private static final String ORDERS = "CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, amount bigint NOT NULL)";
  private static final String PLACE = "INSERT INTO orders (id, amount) VALUES (?, ?)";

  /** With an id of our own: an order that is placed twice is refused here as well. Without one a row gets a random id. */
  private static final String TELL =
      "INSERT INTO baton_outbox (id, topic, key, payload, headers) VALUES (?, 'orders', ?, ?, ?)";

  public static void main(String[] arguments) throws SQLException {
    long order = Long.parseLong(arguments[1]);
    long amount = Long.parseLong(arguments[2]);
    boolean fail = arguments.length > 3 && arguments[3].equals("--fail");
    try (Connection connection = DriverManager.getConnection(arguments[0])) {
      try (Statement statement = connection.createStatement()) {
        statement.execute(ORDERS);
      }
      connection.setAutoCommit(false);
      try {
        place(connection, order, amount);
        tell(connection, order, amount);
        if (fail) {
          throw new IllegalStateException("order " + order + " failed before it was committed");
        }
        connection.commit();
      } catch (SQLException | RuntimeException failure) {
        connection.rollback();
        throw failure;
      }
    }
    System.out.println("order " + order + " is placed");
  }

  private static void place(Connection connection, long order, long amount) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(PLACE)) {
      statement.setLong(1, order);
      statement.setLong(2, amount);
      statement.executeUpdate();
    }
  }

  private static void tell(Connection connection, long order, long amount) throws SQLException {
    String payload = String.format("{\"order\": %d, \"amount\": %d}", order, amount);
    try (PreparedStatement statement = connection.prepareStatement(TELL)) {
      statement.setString(1, "order-" + order);
      // Messages with the same key arrive in the order in which they were written.
      statement.setBytes(2, Long.toString(order).getBytes(StandardCharsets.UTF_8));
      statement.setBytes(3, payload.getBytes(StandardCharsets.UTF_8));
      statement.setString(4, "{\"placed-by\": \"java\", \"tenant\": \"north\"}");
      statement.executeUpdate();
    }
  }
}
