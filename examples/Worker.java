/* A worker for qml, with JDBC:
 *
 *     java -cp /usr/share/java/postgresql.jar Worker.java NAME QUEUE...
 *     java -cp ... Worker.java --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on, by TCP; QML_LEASE is the lease in
 * seconds. SIGTERM ends the worker after its current job; it releases the others that it holds.
 */
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.util.*;
import java.util.function.Function;
import sun.misc.Signal;

public class Worker {
    static final Map<String, String> ENV = System.getenv();
    static final int BATCH = 10;
    static final double LEASE = Double.parseDouble(ENV.getOrDefault("QML_LEASE", "60")); // seconds; beats each third
    static final int WAIT = 5; // seconds; SIGTERM takes effect after the wait, so it is short
    static final String[] METHODS = {"send_receipt", "check_log"};

    record Job(String id, String attempt, String method, String order, String path) {}
    static volatile List<Job> held = List.of(); // the batch; the calls pass over jobs that have ended
    static volatile boolean stopping = false;

    /** A job in the database: what it writes commits together with the end of the job. */
    static String sendReceipt(Connection db, String order) throws SQLException {
        List<String[]> rows = query(db, "UPDATE orders SET receipt_sent = true WHERE id = ?::int"
                + " RETURNING jsonb_build_object('sent_to', customer)", order);
        if (rows.isEmpty()) throw new IllegalArgumentException("there is no order " + order);
        return rows.get(0)[0];
    }

    /** A job outside: the log of another program, any bytes, must begin with "ok". */
    static String checkLog(String path) throws Exception {
        String log = new String(Files.readAllBytes(Path.of(path)), StandardCharsets.UTF_8);
        if (!log.startsWith("ok")) throw new IllegalStateException(log);
        return "{\"characters\": " + log.length() + "}";
    }

    static Connection connect() throws SQLException {
        String host = ENV.getOrDefault("PGHOST", "/").startsWith("/") ? "localhost" : ENV.get("PGHOST"); // no sockets
        return DriverManager.getConnection(String.format("jdbc:postgresql://%s:%s/%s?user=%s&prepareThreshold=0", host,
                ENV.getOrDefault("PGPORT", "5432"), ENV.getOrDefault("PGDATABASE", "postgres"),
                ENV.getOrDefault("PGUSER", System.getProperty("user.name"))));
    }

    /** Runs a statement, with arguments that are numbers, texts or arrays of texts, and returns its rows. */
    static List<String[]> query(Connection db, String sql, Object... args) throws SQLException {
        List<String[]> rows = new ArrayList<>();
        try (PreparedStatement s = db.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            ResultSet r = s.execute() ? s.getResultSet() : null;
            while (r != null && r.next()) {
                String[] row = new String[r.getMetaData().getColumnCount()];
                for (int i = 0; i < row.length; i++) row[i] = r.getString(i + 1);
                rows.add(row);
            }
        }
        return rows;
    }

    static void doJob(Connection db, Job job) throws SQLException {
        try {
            query(db, "BEGIN");
            String result = job.method.equals("send_receipt") ? sendReceipt(db, job.order) : checkLog(job.path);
            query(db, "CALL qml_succeed_job(?::uuid, ?::int, ?::jsonb)", job.id, job.attempt, result);
            query(db, "COMMIT");
        } catch (Exception e) {
            query(db, "ROLLBACK"); // an error here: the connection is lost
            if (e instanceof SQLException s && String.valueOf(s.getSQLState()).matches("40001|40P01")) { // a conflict
                release(db, List.of(job));
            } else { // passes over a job that is not ours any more
                query(db, "SELECT qml_fail_many(ARRAY[?::uuid], ARRAY[?::int], ARRAY[?], ARRAY[?])", job.id, job.attempt,
                        clean(String.valueOf(e.getMessage())), e.getClass().getName());
            }
        }
    }

    /** Without zero characters and lone surrogates, which PostgreSQL does not accept. */
    static String clean(String text) {
        return new String(text.replace("\0", "").getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8);
    }

    static String[] column(List<Job> jobs, Function<Job, String> field) {
        return jobs.stream().map(field).toArray(String[]::new);
    }

    /** Gives jobs back; their attempts do not count. */
    static void release(Connection db, List<Job> jobs) throws SQLException {
        query(db, "SELECT qml_release_many(?::uuid[], ?::int[])", column(jobs, Job::id), column(jobs, Job::attempt));
    }

    /** Extends the leases, on a connection of its own: the others are busy. */
    static void beat() {
        for (Connection db = null; ; ) {
            try {
                Thread.sleep((long) (LEASE * 1000 / 3));
                List<Job> jobs = held;
                if (jobs.isEmpty()) continue;
                if (db == null || db.isClosed()) db = connect();
                query(db, "SELECT qml_heartbeat_many(?::uuid[], ?::int[], make_interval(secs => ?))",
                        column(jobs, Job::id), column(jobs, Job::attempt), LEASE);
            } catch (SQLException | InterruptedException e) {
                System.err.println("no heartbeat: " + e.getMessage());
            }
        }
    }

    static void work(Connection db, Connection waiter, String name, String[] queues) throws SQLException {
        while (!stopping) {
            held = query(db, "SELECT id, attempt, method, payload ->> 'order', payload ->> 'path'"
                    + " FROM qml_fetch(?, ?, ?, make_interval(secs => ?), ?)", name, queues, BATCH, LEASE, METHODS)
                    .stream().map(row -> new Job(row[0], row[1], row[2], row[3], row[4])).toList();
            for (Job job : held) if (!stopping) doJob(db, job);
            if (held.isEmpty()) query(waiter, "CALL qml_wait(?, make_interval(secs => ?), ?)", queues, WAIT, METHODS);
        }
    }

    public static void main(String[] args) throws Exception {
        String[] queues = Arrays.copyOfRange(args, 1, args.length);
        if (args[0].equals("--enqueue")) {
            String sql = "SELECT qml_enqueue(queue => ?, method => ?, payload => ?::jsonb)";
            System.out.println(query(connect(), sql, (Object[]) queues).get(0)[0]);
            return;
        }
        for (String signal : List.of("TERM", "INT")) Signal.handle(new Signal(signal), s -> stopping = true);
        Thread beats = new Thread(Worker::beat);
        beats.setDaemon(true);
        beats.start();
        double pause = 0.1;
        while (!stopping) {
            try (Connection db = connect(); Connection waiter = connect()) {
                release(db, held); // what it held when the last connection was lost
                pause = 0.1;
                work(db, waiter, args[0], queues);
                release(db, held);
            } catch (SQLException e) {
                // Another class is a mistake, such as a right that is missing.
                if (!String.valueOf(e.getSQLState()).matches("(08|53|57).*|null")) throw e;
                System.err.println("no connection: " + e.getMessage());
                Thread.sleep((long) (1000 * pause * (0.5 + Math.random() / 2)));
                pause = Math.min(2 * pause, 10);
            }
        }
    }
}
