#!/usr/bin/env php
<?php
/* Jobs of Laravel's queue that qml keeps, without the rest of Laravel:
 *
 *     demo.php work QUEUE[,QUEUE...]    a worker
 *     demo.php try QUEUE                pushes jobs of all kinds, one of them to QUEUE-slow, and
 *                                      prints their ids
 *     demo.php orders QUEUE FROM TO     pushes a receipt for each of these orders
 *
 * The connection comes from PGDATABASE, PGHOST and so on.  If PGHOST is a pooler's, the
 * server's own is QML_CLAIMS_HOST.
 */

use Illuminate\Bus\{Dispatcher as Bus, Queueable};
use Illuminate\Container\Container;
use Illuminate\Contracts\Bus\Dispatcher as BusContract;
use Illuminate\Contracts\Container\Container as ContainerContract;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher as EventsContract;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Database\Capsule\Manager as DB;
use Illuminate\Events\Dispatcher as Events;
use Illuminate\Queue\{Capsule\Manager as Queue, InteractsWithQueue, Worker, WorkerOptions};

error_reporting(E_ALL & ~E_DEPRECATED); // Laravel 8 is older than PHP 8.2
foreach (['Queue', 'Database', 'Events', 'Bus'] as $part) {
    require_once "Illuminate/$part/autoload.php"; // where Debian has them
}
require_once __DIR__ . '/QmlQueue.php';
require_once __DIR__ . '/QmlJob.php';

abstract class Task implements ShouldQueue
{
    use InteractsWithQueue;
    use Queueable;

    protected $order; // serialized with a zero byte

    public function __construct(int $order)
    {
        $this->order = $order;
    }

    protected function isThere(): bool
    {
        return DB::table('orders')->where('id', $this->order)->exists();
    }

    protected function note(string $note): void
    {
        DB::table('orders')->where('id', $this->order)->update(['note' => $note]);
    }
}

/** A job in the database: what it writes commits together with its end. */
class SendReceipt extends Task implements Qml\InTransaction
{
    public function handle()
    {
        DB::table('orders')->where('id', $this->order)->update(['receipt_sent' => true])
            or throw new OutOfBoundsException("there is no order {$this->order}");
    }
}

/** Fails at first.  What it writes then is undone. */
class Flaky extends Task implements Qml\InTransaction
{
    public $tries = 2;
    public $backoff = [1, 5];

    public function handle()
    {
        $this->note('attempts: ' . $this->attempts());
        $this->attempts() > 1 or throw new UnexpectedValueException("not yet\0\xff");
    }
}

/** Fails always, and is told so in the end. */
class Hopeless extends Task
{
    public $tries = 2;
    public $backoff = 0;

    public function handle()
    {
        throw new UnexpectedValueException('never');
    }

    public function failed(Throwable $e)
    {
        $this->note('failed: ' . $e->getMessage());
    }
}

/** Gives up by itself. */
class GivesUp extends Task
{
    public function handle()
    {
        $this->fail(new DomainException('not my job'));
    }
}

/** Cannot be done before the order is there. */
class NotYet extends Task
{
    public $tries = 1;

    public function handle()
    {
        $this->isThere() or $this->release(1);
    }
}

/** Takes longer than it may. */
class Slow extends Task
{
    public $tries = 1;
    public $timeout = 1;

    public function handle()
    {
        while (true) {
            usleep(100000);
        }
    }

    public function failed(Throwable $e)
    {
        $this->note('too slow');
    }
}

$container = new Container;
Container::setInstance($container);
$db = new DB($container);
// Without prepared statements, which some poolers do not support.
$settings = ['driver' => 'pgsql', 'database' => getenv('PGDATABASE'), 'host' => getenv('PGHOST') ?: null,
    'port' => getenv('PGPORT') ?: null, 'username' => getenv('PGUSER') ?: null, 'password' => null,
    'options' => [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]];
$db->addConnection($settings);
$db->addConnection(['host' => getenv('QML_CLAIMS_HOST') ?: $settings['host']] + $settings, 'claims');
$db->setAsGlobal();
$events = new Events($container);
$container->instance(ContainerContract::class, $container);
$container->instance('events', $events);
$container->instance(EventsContract::class, $events);
$container->instance(BusContract::class, new Bus($container));
$queue = new Queue($container);
$queue->addConnection(['driver' => 'qml', 'claims' => 'claims', 'wait' => (int) (getenv('QML_WAIT') ?: 5)]);
$queue->addConnector('qml', fn () => new Qml\Connector($db->getDatabaseManager(), $events));

[, $command, $name] = $argv;
$qml = $queue->getConnection();
switch ($command) {
    case 'work':
        $handler = new class implements ExceptionHandler {
            public function report(Throwable $e)
            {
                fwrite(STDERR, get_class($e) . ': ' . $e->getMessage() . "\n");
            }

            public function shouldReport(Throwable $e)
            {
                return true;
            }

            public function render($request, Throwable $e)
            {
                throw $e;
            }

            public function renderForConsole($output, Throwable $e)
            {
                throw $e;
            }
        };
        $worker = new Worker($queue->getQueueManager(), $events, $handler, fn () => false);
        exit($worker->daemon('default', $name, new WorkerOptions('default', 0, 128, 60, 0, 10)));
    case 'orders':
        $qml->bulk(array_map(fn ($id) => new SendReceipt($id), range((int) $argv[3], (int) $argv[4])), '', $name);
        break;
    case 'try':
        $ids = DB::connection()->transaction(fn () => [
            'receipt' => $qml->push(new SendReceipt(1), '', $name),
            'flaky' => $qml->push(new Flaky(2), '', $name),
            'hopeless' => $qml->push(new Hopeless(3), '', $name),
            'gives_up' => $qml->push(new GivesUp(3), '', $name),
            'later' => $qml->push(new NotYet(9), '', $name),
            'slow' => $qml->push(new Slow(4), '', "$name-slow"),
            'delayed' => $qml->later(3600, new SendReceipt(4), '', $name),
        ]);
        DB::connection()->beginTransaction();
        $ids['undone'] = $qml->push(new GivesUp(3), '', $name);
        DB::connection()->rollBack();
        foreach ($ids as $job => $id) {
            echo "$job $id\n";
        }
        echo 'size ', $qml->size($name), "\n";
}
