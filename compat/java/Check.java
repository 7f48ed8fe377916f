import java.util.Arrays;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;

/** Assertions. */
final class Check {
    /** Longest wait for anything that must happen. */
    static final int SECONDS_MAX = 30;

    private static final int SHOWN_CHARACTERS_MAX = 300;

    private Check() {}

    interface Action {
        void run() throws Exception;
    }

    static void that(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError(message);
        }
    }

    static void equal(Object actual, Object expected, String what) {
        if (!Objects.deepEquals(actual, expected)) {
            throw new AssertionError(what + ": expected " + shown(expected) + ", got " + shown(actual));
        }
    }

    private static String shown(Object value) {
        String text = value instanceof byte[] bytes ? Arrays.toString(bytes) : String.valueOf(value);
        return text.length() <= SHOWN_CHARACTERS_MAX ? text : text.substring(0, SHOWN_CHARACTERS_MAX) + "... (" + text.length() + " characters)";
    }

    /** Fails unless the action throws this class, bare or as the cause; returns it. */
    static <T extends Throwable> T refusedAs(Class<T> expected, String what, Action action) throws Exception {
        try {
            action.run();
        } catch (Throwable thrown) {
            Throwable error = thrown instanceof ExecutionException && thrown.getCause() != null ? thrown.getCause() : thrown;
            if (expected.isInstance(error)) {
                return expected.cast(error);
            }
            throw new AssertionError(what + ": expected " + expected.getSimpleName() + ", got " + error);
        }
        throw new AssertionError(what + " was accepted");
    }

    /** Waits until the condition holds. */
    static void eventually(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + SECONDS_MAX * 1_000_000_000L;
        while (!condition.call()) {
            that(System.nanoTime() < deadline, "not within " + SECONDS_MAX + " s: " + what);
            Thread.sleep(50);
        }
    }
}
