#!/usr/bin/env ruby
# frozen_string_literal: true

# A worker for qml, with the gem pg:
#
#   worker.rb NAME QUEUE...
#   worker.rb --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
#
# The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
# SIGTERM ends the worker after its current job; it releases the others that it holds.

require 'json'
require 'pg'

BATCH = 10
LEASE = Float(ENV.fetch('QML_LEASE', '60')) # seconds; a heartbeat comes each third
WAIT = 30 # seconds; SIGTERM ends it
ARRAYS = PG::TextEncoder::Array.new

$held = {} # attempts by id, of the jobs that this worker holds
$lock = Mutex.new # of $held
$stopping = false
$stopped, stop = IO.pipe # readable when the worker shall end
%w[TERM INT].each { |name| trap(name) { $stopping = true; stop.write_nonblock('x', exception: false) } }

METHODS = {
  # A job in the database: what it writes commits together with the end of the job.
  'send_receipt' => lambda do |conn, payload|
    order = payload['order']
    row = conn.exec_params(
      'UPDATE orders SET receipt_sent = true WHERE id = $1 RETURNING customer', [order]
    ).first or raise KeyError, "there is no order #{order}"
    { sent_to: row['customer'] }
  end,

  # A job outside: the log of another program, any bytes, must begin with "ok".
  'check_log' => lambda do |_conn, payload|
    log = File.binread(payload['path'])
    log.start_with?('ok') or raise log
    { bytes: log.bytesize }
  end
}.freeze

# The _many functions pass over a job that is not ours any more: that is no error.
def do_job(conn, job)
  id, attempt = job.values_at('id', 'attempt')
  conn.transaction do
    result = METHODS.fetch(job['method']).call(conn, JSON.parse(job['payload']))
    conn.exec_params('SELECT qml_succeed($1, $2, $3)', [id, attempt, JSON.generate(result)])
  end
rescue PG::TRSerializationFailure, PG::TRDeadlockDetected # another transaction was in the way
  release(conn, [[id, attempt]])
rescue StandardError => e
  conn.exec_params(
    'SELECT qml_fail_many(ARRAY[$1::uuid], ARRAY[$2::int], ARRAY[$3], ARRAY[$4], ARRAY[$5])',
    [id, attempt, clean(e.message), e.class.name, clean(e.backtrace.join("\n"))]
  )
end

# Without zero bytes and what is not UTF-8, which PostgreSQL does not accept.
def clean(text)
  text.dup.force_encoding(Encoding::UTF_8).scrub('?').delete("\0")
end

# Gives jobs back; their attempts do not count.
def release(conn, claims)
  return if claims.empty?

  conn.exec_params('SELECT qml_release_many($1, $2)', claims.transpose.map { |list| ARRAYS.encode(list) })
end

def release_held(conn)
  release(conn, $lock.synchronize { $held.to_a })
  $lock.synchronize { $held.clear }
end

# Extends the leases, on a connection of its own: the others are busy.
def beat
  conn = nil
  loop do
    sleep LEASE / 3
    claims = $lock.synchronize { $held.to_a }
    next if claims.empty?

    begin
      conn ||= PG.connect
      kept = conn.exec_params(
        'SELECT id FROM qml_heartbeat_many($1, $2, make_interval(secs => $3))',
        [*claims.transpose.map { |list| ARRAYS.encode(list) }, LEASE]
      ).column_values(0)
      # Those that are missing are not ours any more.
      $lock.synchronize { $held.delete_if { |id, n| claims.include?([id, n]) && !kept.include?(id) } }
    rescue PG::Error => e
      warn "no heartbeat: #{e.message}"
      conn&.close
      conn = nil
    end
  end
end

def work(conn, waiter, name, queues)
  queues, methods = [queues, METHODS.keys].map { |list| ARRAYS.encode(list) }
  until $stopping
    jobs = conn.exec_params(
      'SELECT * FROM qml_fetch($1, $2::text[], $3, make_interval(secs => $4), $5)',
      [name, queues, BATCH, LEASE, methods]
    ).to_a
    $lock.synchronize { jobs.each { |job| $held[job['id']] = job['attempt'] } }
    jobs.each do |job|
      next if $stopping || !$lock.synchronize { $held.key?(job['id']) }

      do_job(conn, job)
      $lock.synchronize { $held.delete(job['id']) }
    end
    next if jobs.any?

    waiter.send_query_params('CALL qml_wait($1::text[], make_interval(secs => $2), $3)', [queues, WAIT, methods])
    ready, = IO.select([waiter.socket_io, $stopped])
    waiter.get_last_result if ready.include?(waiter.socket_io)
  end
end

name, *queues = ARGV
if name == '--enqueue'
  sql = 'SELECT qml_enqueue(queue => $1, method => $2, payload => $3::jsonb)'
  puts PG.connect.exec_params(sql, queues).getvalue(0, 0)
  exit
end
Thread.new { beat }
pause = 0.1
until $stopping
  begin
    conn, waiter = Array.new(2) { PG.connect }
    release_held(conn) # what it held when the last connection was lost
    pause = 0.1
    work(conn, waiter, name, queues)
    release_held(conn)
  rescue PG::Error => e
    # An SQLSTATE of another class is a mistake, such as a right that is missing.
    state = e.result&.error_field(PG::PG_DIAG_SQLSTATE)
    raise unless ['08', '53', '57', nil].include?(state&.slice(0, 2))

    warn "no connection: #{e.message}"
    IO.select([$stopped], nil, nil, pause * rand(0.5..1.0))
    pause = [2 * pause, 10].min
  ensure
    [conn, waiter].each { |c| c.close if c && !c.finished? }
  end
end
