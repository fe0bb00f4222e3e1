<?php
/* A job of Laravel's queue that a worker has fetched from qml.  What becomes of it:
 *
 *     Laravel                       qml
 *     attempts()                    tries
 *     delete, after handle()        qml_succeed
 *     fail(), no tries left         qml_fail without retry: state "failed"
 *     exception, tries left         qml_fail with retry_at: now, and the backoff of Laravel
 *     release(delay)                qml_release: later, and the attempt does not count
 *     tries, backoff, retryUntil,   Laravel's; the worker decides by them, and qml would allow
 *       maxExceptions               1000 retries
 *     timeout                       Laravel's: the worker kills itself, and the job is reclaimed
 *
 * A job that implements Qml\InTransaction, whose work is in this database, is done in the
 * transaction that ends it: exactly once.  All others are done at least once.
 */
declare(strict_types=1);

namespace Qml;

use Illuminate\Contracts\Queue\Job as JobContract;
use Illuminate\Database\{Connection, QueryException};
use Illuminate\Queue\{Jobs, ManuallyFailedException};
use Throwable;

interface InTransaction
{
}

class Job extends Jobs\Job implements JobContract
{
    public ?Throwable $exception = null; // that ended the attempt
    private bool $lost = false; // another worker has the job

    public function __construct($container, private Connection $db, private object $row, $connectionName, $queue)
    {
        [$this->container, $this->connectionName, $this->queue] = [$container, $connectionName, $queue];
    }

    public function fire()
    {
        if (!is_subclass_of($this->payload()['data']['commandName'] ?? '', InTransaction::class)) {
            return parent::fire();
        }
        try {
            $this->db->transaction(fn () => parent::fire());
        } catch (Throwable $e) {
            $this->deleted = $this->released = $this->failed = false; // that was undone
            throw $e;
        }
    }

    public function delete()
    {
        if ($this->failed) {
            $this->report(', retry => false');
        } else {
            $this->end('CALL qml_succeed_job(?, ?)', []);
        }
        parent::delete();
    }

    public function fail($e = null)
    {
        $this->exception = $e ?? new ManuallyFailedException;
        parent::fail($e);
    }

    public function release($delay = 0)
    {
        $at = 'now() + make_interval(secs => ?)';
        $seconds = $this->secondsUntil($delay);
        if ($this->exception) {
            $this->report(", retry_at => $at", $seconds);
        } else {
            $this->end("CALL qml_release_job(?, ?, $at)", [$seconds]);
        }
        parent::release($delay);
    }

    public function isDeleted()
    {
        return $this->lost || parent::isDeleted(); // so that the worker does no more
    }

    public function attempts()
    {
        return $this->row->tries;
    }

    public function getJobId()
    {
        return $this->row->id;
    }

    public function getRawBody()
    {
        return self::translate(json_decode($this->row->payload, true), ["\x010" => "\0", "\x011" => "\x01"]);
    }

    /** A document as JSON, with replacements in all its strings. */
    public static function translate(array $data, array $pairs): string
    {
        array_walk_recursive($data, fn (&$item) => $item = is_string($item) ? strtr($item, $pairs) : $item);
        return json_encode($data, JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION | JSON_THROW_ON_ERROR);
    }

    private function report(string $more, ...$args): void
    {
        // Without zero bytes and what is not UTF-8, which PostgreSQL does not accept.
        $clean = fn ($text) => str_replace("\0", '', mb_scrub($text, 'UTF-8'));
        $e = $this->exception;
        $this->end("CALL qml_fail_job(?, ?, ?, ?, ?$more)",
            [$clean($e->getMessage()), $e::class, $clean($e->getTraceAsString()), ...$args]);
    }

    private function end(string $call, array $args): void
    {
        try {
            $this->db->statement($call, [$this->row->id, $this->row->attempt, ...$args]);
        } catch (QueryException $e) {
            $this->lost = in_array($e->getCode(), ['QM001', 'QM003'], true);
            throw $e;
        }
    }
}
