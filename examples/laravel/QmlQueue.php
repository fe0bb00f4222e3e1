<?php
/* qml as a queue of Laravel, tested with 8 and 10; not for 12 and later.  Laravel's worker works it:
 *
 *     Queue::extend('qml', fn () => new Qml\Connector(app('db'), app('events')));    // in boot()
 *     'qml' => ['driver' => 'qml'],                          // in config/queue.php, connections
 *     php artisan queue:work qml --queue=high,default --sleep=0 --tries=3
 *
 *     Laravel                       qml
 *     class of the job, payload     method, payload
 *     delay                         delay: state "scheduled"
 *
 * QmlJob.php says how a job is worked and ends.  A job is pushed in the transaction that is
 * open, and exists if that commits: leave after_commit off.
 *
 * A worker fetches and waits on a connection of its own.  Its claims are bound to that session,
 * so jobs need no heartbeats, and are ready again as soon as their worker died.  The
 * configuration can also have 'queue' (default); 'connection', the database; 'claims', the same
 * database past a pooler; and 'wait', seconds (5), after which SIGTERM takes effect.
 */
declare(strict_types=1);

namespace Qml;

use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Contracts\Queue\Queue as QueueContract;
use Illuminate\Database\{Connection, DatabaseManager};
use Illuminate\Queue\{Connectors\ConnectorInterface, Events\JobExceptionOccurred, Events\Looping, Queue as Base};
use PDOException;
use Throwable;

class Connector implements ConnectorInterface
{
    public function __construct(private DatabaseManager $db, private Dispatcher $events)
    {
    }

    public function connect(array $config)
    {
        $db = $this->db->connection($config['connection'] ?? null);
        // A second connection to the same database, which only the queue uses.
        $claims = $this->db->connection(($config['claims'] ?? $db->getName()) . '::write');
        $queue = new Queue($db, $claims, $config['queue'] ?? 'default', $config['wait'] ?? 5);
        $this->events->listen(Looping::class, fn ($event) => $queue->wait($event));
        $this->events->listen(JobExceptionOccurred::class, function ($event) {
            if ($event->job instanceof Job) {
                $event->job->exception = $event->exception;
            }
        });
        return $queue;
    }
}

class Queue extends Base implements QueueContract
{
    private const ENQUEUE = 'CALL qml_enqueue_job(?, ?::jsonb, ?, max_retries => 1000,'
        . ' delay => make_interval(secs => ?), id => ?::uuid, options => \'{"on_duplicate_id": "return"}\')';
    private const ENQUEUE_MANY = 'SELECT qml_enqueue_many(?, ARRAY(SELECT jsonb_array_elements(?::jsonb)), ?,'
        . ' max_retries => 1000)';
    private const FETCH = "SELECT id, attempt, tries, payload FROM qml_fetch(?, ARRAY[?], lease => '0')";
    private const WAIT = "CALL qml_wait(string_to_array(?, ','), make_interval(secs => ?))";
    private bool $idle = false;
    private ?Throwable $error = null;

    public function __construct(private Connection $db, private Connection $claims, private $default, private $seconds)
    {
    }

    public function size($queue = null)
    {
        return $this->db->selectOne('SELECT qml_queue_depth(?, true) AS n', [$this->name($queue)], false)->n ?? 0;
    }

    public function push($job, $data = '', $queue = null)
    {
        return $this->later(0, $job, $data, $queue);
    }

    public function later($delay, $job, $data = '', $queue = null)
    {
        return $this->enqueueUsing($job, $this->createPayload($job, $this->name($queue), $data), $queue, $delay,
            fn ($payload, $queue, $delay) => $this->enqueue($payload, $queue, $delay));
    }

    public function pushRaw($payload, $queue = null, array $options = [])
    {
        return $this->enqueue($payload, $queue, $options['delay'] ?? 0);
    }

    public function bulk($jobs, $data = '', $queue = null)
    {
        $groups = [];
        foreach ((array) $jobs as $job) {
            [$method, $document] = self::encode($this->createPayload($job, $this->name($queue), $data));
            $groups[$method][] = $document;
        }
        $this->db->transaction(function () use ($groups, $queue) {
            foreach ($groups as $method => $documents) {
                $args = [$method, '[' . implode(',', $documents) . ']', $this->name($queue)];
                $this->db->selectFromWriteConnection(self::ENQUEUE_MANY, $args);
            }
        });
    }

    public function pop($queue = null)
    {
        if ($this->error) {
            [$error, $this->error] = [$this->error, null];
            throw $error; // the worker reports it, and tries again after a second
        }
        $queue = $this->name($queue);
        $row = $this->claims->selectFromWriteConnection(self::FETCH, [gethostname() . '-' . getmypid(), $queue])[0] ?? null;
        $this->idle = $row === null;
        return $row ? new Job($this->container, $this->db, $row, $this->connectionName, $queue) : null;
    }

    /** Before the worker looks at its queues: waits, if there was nothing at the last look. */
    public function wait(Looping $event): void
    {
        if (!$this->idle || $event->connectionName !== $this->connectionName) {
            return;
        }
        try {
            $this->claims->selectFromWriteConnection(self::WAIT, [$event->queue, $this->seconds]);
        } catch (PDOException $e) {
            $this->error = $e;
        }
    }

    private function enqueue(string $payload, ?string $queue, $delay)
    {
        // Laravel repeats a statement on a new connection.  With an id, version 7, that makes one job.
        $id = sprintf('%012x7%.19s', (int) (microtime(true) * 1000), bin2hex(random_bytes(10)));
        $id[16] = '8';
        $args = [...self::encode($payload), $this->name($queue), $this->secondsUntil($delay), $id];
        return $this->db->selectFromWriteConnection(self::ENQUEUE, $args)[0]->id;
    }

    private function name(?string $queue): string
    {
        return $queue ?: $this->default;
    }

    /** The method, and the document without zero bytes: serialized objects have them, jsonb not. */
    private static function encode(string $payload): array
    {
        $data = json_decode($payload, true, 512, JSON_THROW_ON_ERROR);
        $method = $data['displayName'] ?? $data['job'] ?? 'laravel';
        return [$method, Job::translate($data, ["\0" => "\x010", "\x01" => "\x011"])];
    }
}
