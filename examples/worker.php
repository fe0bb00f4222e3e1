#!/usr/bin/env php
<?php
/* A worker for qml, with PDO:
 *
 *     worker.php NAME QUEUE...
 *     worker.php --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
 * SIGTERM ends the worker after its current job; it releases the others that it holds.
 */
declare(strict_types=1);

const BATCH = 10;
define('LEASE', (float) (getenv('QML_LEASE') ?: 60)); // seconds; a heartbeat comes each third
const WAIT = 5; // seconds; SIGTERM takes effect after the wait, so it is short
const METHODS = ['send_receipt', 'check_log'];
const RELEASE = 'SELECT qml_release_many(?, ?)'; // gives jobs back; their attempts do not count

/** A job in the database: what it writes commits together with the end of the job. */
function send_receipt(PDO $db, object $payload): array
{
    $sql = 'UPDATE orders SET receipt_sent = true WHERE id = ? RETURNING customer';
    $customer = run($db, $sql, $payload->order)->fetchColumn();
    if ($customer === false) {
        throw new OutOfBoundsException("there is no order {$payload->order}");
    }
    return ['sent_to' => $customer];
}

/** A job outside: the log of another program, any bytes, must begin with "ok". */
function check_log(PDO $db, object $payload): array
{
    $log = file_get_contents($payload->path);
    if (!str_starts_with((string) $log, 'ok')) {
        throw new UnexpectedValueException($log === false ? "cannot read {$payload->path}" : $log);
    }
    return ['bytes' => strlen($log)];
}

function connect(): PDO
{
    // Without prepared statements, which some poolers do not support.
    return new PDO('pgsql:', getenv('PGUSER') ?: null, null, [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
}

/** Runs a statement. PDO has no arrays: they go as literals, {"a","b"}. */
function run(PDO $db, string $sql, mixed ...$args): PDOStatement
{
    $quote = fn ($item) => '"' . addcslashes((string) $item, '"\\') . '"';
    $literal = fn ($arg) => is_array($arg) ? '{' . implode(',', array_map($quote, $arg)) . '}' : $arg;
    $statement = $db->prepare($sql);
    $statement->execute(array_map($literal, $args));
    return $statement;
}

/** The _many functions pass over a job that is not ours any more: that is no error. */
function do_job(PDO $db, object $job): void
{
    try {
        $db->exec('BEGIN');
        $result = ($job->method)($db, json_decode($job->payload));
        run($db, 'SELECT qml_succeed(?, ?, ?)', $job->id, $job->attempt, json_encode($result));
        $db->exec('COMMIT');
    } catch (Throwable $e) {
        $db->exec('ROLLBACK'); // an error here: the connection is lost
        if (in_array($e->getCode(), ['40001', '40P01'], true)) { // another transaction was in the way
            run($db, RELEASE, [$job->id], [$job->attempt]);
        } else {
            run($db, 'SELECT qml_fail_many(?, ?, ?, ?, ?)', [$job->id], [$job->attempt],
                [clean($e->getMessage())], [$e::class], [clean($e->getTraceAsString())]);
        }
    }
}

/** Without zero bytes and what is not UTF-8, which PostgreSQL does not accept. */
function clean(string $text): string
{
    return json_decode(json_encode(str_replace("\0", '', $text), JSON_INVALID_UTF8_SUBSTITUTE));
}

/** Starts a process that extends the leases: PHP has no threads. The stream is for the claims of each batch. */
function start_beats()
{
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    if (pcntl_fork() !== 0) {
        return $ours; // if there is no process, the first write fails
    }
    fclose($ours);
    pcntl_sigprocmask(SIG_BLOCK, [SIGTERM, SIGINT]);
    stream_set_timeout($theirs, 0, (int) (LEASE * 1e6 / 3));
    for ($db = null, $claims = [[], []];;) {
        $line = fgets($theirs);
        if ($line !== false) {
            $claims = json_decode($line); // their leases have just begun
        } elseif (!stream_get_meta_data($theirs)['timed_out']) {
            exit(0); // the worker is gone
        } elseif ($claims !== [[], []]) {
            try {
                $db ??= connect();
                run($db, 'SELECT qml_heartbeat_many(?, ?, make_interval(secs => ?))', ...[...$claims, LEASE]);
            } catch (PDOException $e) {
                fwrite(STDERR, "no heartbeat: {$e->getMessage()}\n");
                $db = null;
            }
        }
    }
}

[$name, $queues] = [$argv[1], array_slice($argv, 2)];
if ($name === '--enqueue') {
    $sql = 'SELECT qml_enqueue(queue => ?, method => ?, payload => ?::jsonb)';
    echo run(connect(), $sql, ...$queues)->fetchColumn(), "\n";
    exit(0);
}
$beats = start_beats();
$stopping = false;
pcntl_async_signals(true);
foreach ([SIGTERM, SIGINT] as $signal) {
    pcntl_signal($signal, function () use (&$stopping) { $stopping = true; });
}
$held = [[], []]; // ids and attempts of the batch; the calls pass over those that have ended
$pause = 0.1;
while (!$stopping) {
    try {
        [$db, $waiter] = [connect(), connect()];
        run($db, RELEASE, ...$held); // after a connection was lost
        $pause = 0.1;
        while (!$stopping) {
            $jobs = run($db, 'SELECT * FROM qml_fetch(?, ?::text[], ?, make_interval(secs => ?), ?)',
                $name, $queues, BATCH, LEASE, METHODS)->fetchAll(PDO::FETCH_OBJ);
            $held = [array_column($jobs, 'id'), array_column($jobs, 'attempt')];
            fwrite($beats, json_encode($held) . "\n") ?: throw new RuntimeException('no heartbeats');
            for ($i = 0; $i < count($jobs) && !$stopping; $i++) {
                do_job($db, $jobs[$i]);
            }
            if ($jobs === []) {
                run($waiter, 'CALL qml_wait(?::text[], make_interval(secs => ?), ?)', $queues, WAIT, METHODS);
            }
        }
        run($db, RELEASE, ...$held);
    } catch (PDOException $e) {
        // Another class is a mistake, such as a right that is missing. libpq's errors are HY000.
        if (!in_array(substr($e->errorInfo[0] ?? '08', 0, 2), ['08', '53', '57', 'HY'], true)) {
            throw $e;
        }
        fwrite(STDERR, "no connection: {$e->getMessage()}\n");
        usleep((int) (1e6 * $pause * mt_rand(50, 100) / 100));
        $pause = min(2 * $pause, 10);
    }
}
