# frozen_string_literal: true

# qml as the queue of ActiveJob, on the connections of ActiveRecord.  Tested with Rails 6.1 and 7.2:
#
#   config.active_job.queue_adapter = :qml
#
#   ActiveJob                          qml
#   class, serialized job              method, payload
#   queue_name                         queue
#   priority, lower is first           priority with the other sign, because higher is first
#   wait, wait_until                   run_at: state "scheduled"
#   provider_job_id                    id; a retry by retry_on is a new job with a new id
#
# A job is enqueued in the transaction that is open, and exists if that commits.  So
# enqueue_after_transaction_commit stays off.  qml_worker.rb says how a job is worked and ends.

require 'active_job'
require 'active_record'
require 'json'

module Qml
  # Runs SQL past the query cache.  The values are in the text, so that nothing is prepared,
  # which some poolers do not support.
  def self.query(sql, **values)
    ActiveRecord::Base.connection.exec_query(ActiveRecord::Base.sanitize_sql_array([sql, values]), 'qml').to_a
  end

  # For jobs whose work is in this database: they are done in the transaction that ends them.
  # An error undoes what perform did, but not what retry_on makes of the error.
  module Transactional
    extend ActiveSupport::Concern
    included { around_perform { |_, work| ActiveRecord::Base.transaction(requires_new: true) { work.call } } }
  end

  # Raised by a job that cannot be done now: it comes again after so many seconds.
  class Later < StandardError
    attr_reader :wait

    def initialize(wait, reason = 'later')
      super(reason)
      @wait = wait
    end
  end
end

module ActiveJob
  module QueueAdapters
    class QmlAdapter
      # CALL, because a SELECT is taken for a read: of a replica, for example.
      ENQUEUE = 'CALL qml_enqueue_job(:method, :payload::jsonb, queue => :queue, priority => :priority, ' \
                'run_at => to_timestamp(:at))'
      ENQUEUE_MANY = 'SELECT qml_enqueue_many(:method, ARRAY[:payload]::jsonb[], queue => :queue, ' \
                     'priority => :priority, run_at => to_timestamp(:at)) AS id'

      def enqueue(job)
        enqueue_at(job, nil)
      end

      def enqueue_at(job, timestamp)
        store(ENQUEUE, [job], timestamp)
      end

      # For perform_all_later, which Rails has since 7.1.  It enqueues all or raises.
      def enqueue_all(jobs)
        groups = jobs.group_by { |job| [job.class, job.queue_name, job.priority, job.scheduled_at] }
        ActiveRecord::Base.transaction do
          # Ordered, so that two processes that make the same queues do not block each other.
          groups.values.sort_by { |group| group[0].queue_name }.each do |group|
            store(ENQUEUE_MANY, group, group[0].scheduled_at&.to_f)
          end
        end
        jobs.each { |job| job.successfully_enqueued = true if job.respond_to?(:successfully_enqueued=) }
        jobs.size
      end

      # Rails 7.2 asks.
      def enqueue_after_transaction_commit?
        false
      end

      private

      def store(sql, jobs, timestamp)
        rows = Qml.query(sql, method: jobs[0].class.name, payload: jobs.map { |job| JSON.generate(job.serialize) },
                              queue: jobs[0].queue_name, priority: -jobs[0].priority.to_i, at: timestamp)
        jobs.zip(rows) { |job, row| job.provider_job_id = row['id'] }
      end
    end
  end
end
