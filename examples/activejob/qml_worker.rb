# frozen_string_literal: true

# A process that works ActiveJob's jobs in qml.  With all classes of jobs loaded:
#
#   Qml::Worker.new(queues: %w[default mailers]).run
#
#   ActiveJob                          qml
#   perform returns, or discard_on     qml_succeed, in one call with the next fetch
#   retry_on                           a new job, delayed, and qml_succeed of this one
#   retry_on has no attempts left      qml_fail without retry: state "failed"
#   any other error                    qml_fail: retried as the queue says
#   raise Qml::Later                   qml_release: later, and the attempt does not count
#   executions                         those of the payload, and the tries that qml counted
#
# Jobs that include Qml::Transactional, whose work is in this database, are done in the
# transaction that ends them: exactly once.  All others are done at least once.  ActiveJob has no
# timeouts, and Ruby cannot stop a job safely.

require_relative 'qml_adapter'
require 'pg'
require 'socket'

module Qml
  # Does one job at a time.  SIGTERM ends it after the current job.
  class Worker
    LOST = %w[QM001 QM003].freeze # the job is not ours any more
    ARRAYS = PG::TextEncoder::Array.new
    FETCH = 'SELECT id, attempt, tries, payload FROM qml_fetch(:worker, :queues, 1, :lease, :methods)'
    SUCCEED = 'CALL qml_succeed_job(:id, :attempt)'
    FETCH_NEXT = 'SELECT id, attempt, tries, payload ' \
                 'FROM qml_succeed_fetch(:id, :attempt, NULL, :worker, :queues, 1, :lease, :methods)'
    FAIL = 'CALL qml_fail_job(:id, :attempt, :error, :type, :trace, :again)'
    RELEASE = 'CALL qml_release_job(:id, :attempt, now() + make_interval(secs => :wait), :reason)'
    BEAT = 'SELECT qml_heartbeat_many(ARRAY[:id]::uuid[], ARRAY[:attempt], :lease)'

    # Fetches only jobs of the classes that it knows.  The lease is in seconds; a heartbeat comes
    # each third.
    def initialize(queues:, lease: 60, jobs: ActiveJob::Base.descendants, name: "#{Socket.gethostname}-#{Process.pid}")
      @lease = lease
      @fetch = { worker: name, lease: "#{lease} s", queues: ARRAYS.encode(queues),
                 methods: ARRAYS.encode(jobs.map(&:name).compact) }
      @stopped, @stop = IO.pipe # readable when the worker shall end
      # An error for which retry_on has no attempts left is raised anew, after this.
      ActiveSupport::Notifications.subscribe('retry_stopped.active_job') { |*, event| @given_up = event[:error] }
    end

    def run
      %w[TERM INT].each { |signal| trap(signal) { @stopping = true; @stop.write_nonblock('x', exception: false) } }
      Thread.new { loop { beat } }
      pause = 0.1
      until @stopping
        begin
          ActiveRecord::Base.connection.verify! # connects again if need be
          release # what it held when the last connection was lost
          pause = 0.1
          work
        rescue ActiveRecord::ActiveRecordError, PG::Error => e
          # An SQLSTATE of another class is a mistake, such as a right that is missing.
          raise unless ['08', '53', '57', nil].include?(sqlstate(e)&.slice(0, 2))

          warn "no connection: #{e.message}"
          IO.select([@stopped], nil, nil, pause * rand(0.5..1.0))
          pause = [2 * pause, 10].min
        ensure
          @waiter&.disconnect!
          @waiter = nil
        end
      end
    end

    private

    def work
      until @stopping
        @held ||= Qml.query(FETCH, **@fetch).first&.symbolize_keys
        @held ? @held = perform(@held) : wait
      end
      release
    end

    # Returns the next job, if one came when this one ended.
    def perform(job)
      data = JSON.parse(job[:payload])
      data.merge!('provider_job_id' => job[:id], 'executions' => data['executions'] + job[:tries] - 1)
      following = nil
      all = lambda do
        ActiveJob::Base.execute(data)
        following = Qml.query(@stopping ? SUCCEED : FETCH_NEXT, **@fetch, **job).first
      end
      data['job_class'].constantize < Transactional ? ActiveRecord::Base.transaction { all.call } : all.call
      following&.symbolize_keys
    rescue Later => e
      finish(RELEASE, job, wait: e.wait, reason: clean(e.message))
    rescue StandardError, ScriptError => e
      finish(FAIL, job, error: clean(e.message), type: e.class.name, again: !e.equal?(@given_up),
                        trace: clean(Array(e.backtrace).join("\n")))
    end

    # If another worker has the job by now, forgets the job.
    def finish(sql, job, **values)
      Qml.query(sql, **job, **values)
      nil
    rescue ActiveRecord::StatementInvalid => e
      raise unless LOST.include?(sqlstate(e))
    end

    def release
      @held &&= finish(RELEASE, @held, wait: 0, reason: nil)
    end

    # Waits on a connection of its own.
    def wait
      pool = ActiveRecord::Base.connection_pool
      @waiter ||= pool.checkout.tap { |connection| pool.remove(connection) }
      raw = @waiter.raw_connection
      raw.send_query_params('CALL qml_wait($1::text[], $2, $3::text[])', [@fetch[:queues], '30 s', @fetch[:methods]])
      ready, = IO.select([raw.socket_io, @stopped])
      raw.get_last_result if ready.include?(raw.socket_io)
    end

    # Extends the lease, on the connection that the pool gives this thread.  A job that is lost
    # goes on, but its end will be refused.
    def beat
      sleep @lease / 3.0
      held = @held or return
      ActiveRecord::Base.connection_pool.with_connection { Qml.query(BEAT, **held, lease: @fetch[:lease]) }
    rescue ActiveRecord::ActiveRecordError => e
      warn "no heartbeat: #{e.message}"
    end

    # Without zero bytes and what is not UTF-8, which PostgreSQL does not accept.
    def clean(text)
      text.dup.force_encoding(Encoding::UTF_8).scrub('?').delete("\0")
    end

    # nil if no server answered.
    def sqlstate(error)
      error = error.cause if error.is_a?(ActiveRecord::ActiveRecordError)
      error.result&.error_field(PG::PG_DIAG_SQLSTATE) if error.is_a?(PG::Error)
    end
  end
end
