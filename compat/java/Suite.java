import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** The suite of the Java client: runs its cases against one server and prints PASS and FAIL lines. */
public final class Suite {
    /** Cases that run side by side. */
    private static final int PARALLEL_CASES = 5;

    /** A case; it fails by throwing. */
    interface Case {
        void run(Cluster cluster) throws Exception;
    }

    /** A case around a restart of the broker: what it returns runs after the broker was killed and started again. */
    interface RestartCase {
        Case prepare(Cluster cluster) throws Exception;
    }

    private final Map<String, Case> plain = new LinkedHashMap<>();
    private final Map<String, RestartCase> restarts = new LinkedHashMap<>();
    private boolean passed = true;

    void add(String name, Case body) {
        plain.put(name, body);
    }

    void addRestart(String name, RestartCase body) {
        restarts.put(name, body);
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = null, hook = null;
        TreeSet<String> only = new TreeSet<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            switch (arguments[at]) {
                case "--bootstrap" -> bootstrap = arguments[at + 1];
                case "--restart-hook" -> hook = arguments[at + 1];
                case "--case" -> only.add(arguments[at + 1]);
                default -> throw new IllegalArgumentException("unknown argument " + arguments[at]);
            }
        }
        if (bootstrap == null || arguments.length % 2 != 0) {
            throw new IllegalArgumentException("usage: Suite --bootstrap HOST:PORT --restart-hook COMMAND [--case NAME]...");
        }
        Suite suite = new Suite();
        ProduceCases.register(suite);
        ConsumeCases.register(suite);
        GroupCases.register(suite);
        AdminCases.register(suite);
        AdminGroupCases.register(suite);
        RestartCases.register(suite);
        if (!only.isEmpty()) {
            suite.plain.keySet().retainAll(only);
            suite.restarts.keySet().retainAll(only);
            if (suite.plain.size() + suite.restarts.size() != only.size()) {
                throw new IllegalArgumentException("a case of " + only + " does not exist");
            }
        }
        try (Cluster cluster = new Cluster(bootstrap)) {
            suite.runPlain(cluster);
            if (!suite.restarts.isEmpty()) {
                suite.runRestarts(cluster, hook);
            }
        }
        System.exit(suite.passed ? 0 : 1);
    }

    private void runPlain(Cluster cluster) throws Exception {
        Map<String, Callable<Void>> jobs = new LinkedHashMap<>();
        plain.forEach((name, body) -> jobs.put(name, () -> {
            long started = System.nanoTime();
            body.run(cluster);
            pass(name, started);
            return null;
        }));
        runAll(jobs, "");
    }

    private void runRestarts(Cluster cluster, String hook) throws Exception {
        Map<String, Case> second = new ConcurrentHashMap<>();
        Map<String, Callable<Void>> jobs = new LinkedHashMap<>();
        restarts.forEach((name, body) -> jobs.put(name, () -> {
            second.put(name, body.prepare(cluster));
            return null;
        }));
        runAll(jobs, "before the restart: ");
        int status = restart(hook);
        Map<String, Callable<Void>> rest = new LinkedHashMap<>();
        second.forEach((name, body) -> rest.put(name, () -> {
            Check.equal(status, 0, "exit status of the restart hook");
            long started = System.nanoTime();
            body.run(cluster);
            pass(name, started);
            return null;
        }));
        runAll(rest, "after the restart: ");
    }

    private static int restart(String hook) throws IOException, InterruptedException {
        if (hook == null) {
            throw new IllegalArgumentException("the cases around a restart need --restart-hook");
        }
        return new ProcessBuilder("sh", "-c", hook).redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start().waitFor();
    }

    private void runAll(Map<String, Callable<Void>> jobs, String when) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(PARALLEL_CASES);
        List<Future<?>> running = new ArrayList<>();
        jobs.forEach((name, job) -> running.add(pool.submit(() -> {
            try {
                job.call();
            } catch (Throwable error) {
                fail(name, when, error);
            }
        })));
        for (Future<?> one : running) {
            one.get();
        }
        pool.shutdown();
    }

    private synchronized void pass(String name, long startedNanos) {
        System.out.printf(java.util.Locale.ROOT, "PASS %s %.1f%n", name, (System.nanoTime() - startedNanos) / 1e9);
    }

    private synchronized void fail(String name, String when, Throwable error) {
        passed = false;
        StackTraceElement where = error.getStackTrace().length == 0 ? null : error.getStackTrace()[0];
        for (StackTraceElement frame : error.getStackTrace()) {
            if (frame.getClassName().endsWith("Cases")) {
                where = frame;
                break;
            }
        }
        String text = (error instanceof AssertionError ? error.getMessage() : error.toString()).replaceAll("\\s+", " ");
        System.out.println("FAIL " + name + ": " + when + text + (where == null ? "" : " (" + where.getFileName() + ":" + where.getLineNumber() + ")"));
    }
}
