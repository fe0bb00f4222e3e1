#!/usr/bin/env ruby
# frozen_string_literal: true

# Jobs of ActiveJob that qml keeps, without the rest of Rails:
#
#   demo.rb work QUEUE...             a worker
#   demo.rb try QUEUE                 enqueues jobs of all kinds, and prints their ids
#   demo.rb orders QUEUE FROM TO      enqueues a receipt for each of these orders
#
# The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.

require_relative 'qml_worker'

# Without prepared statements, which some poolers do not support.
ActiveRecord::Base.establish_connection(adapter: 'postgresql', database: ENV.fetch('PGDATABASE', nil), pool: 3,
                                        prepared_statements: false)
ActiveJob::Base.queue_adapter = :qml
ActiveJob::Base.logger = Logger.new(nil)

class Order < ActiveRecord::Base
end

# A job in the database: what it writes commits together with its end.
class SendReceipt < ActiveJob::Base
  include Qml::Transactional

  def perform(id)
    Order.where(id: id).update_all(receipt_sent: true) == 1 or raise KeyError, "there is no order #{id}"
  end
end

# A job outside: the log of another program, any bytes, must begin with "ok".
class CheckLog < ActiveJob::Base
  def perform(path)
    log = File.binread(path)
    log.start_with?('ok') or raise log
  end
end

# Fails until it was executed so many times.  What it writes then is undone.
class Flaky < ActiveJob::Base
  include Qml::Transactional

  retry_on ActiveRecord::StatementInvalid, wait: 1, attempts: 2, jitter: 0

  def perform(id, executions_needed)
    Order.find(id).update!(note: "executions: #{executions}")
    Order.connection.execute('SELECT 1/0') if executions < executions_needed
  end
end

# Fails at first, and has no retry_on.
class Unlucky < ActiveJob::Base
  def perform
    raise ArgumentError, 'not yet' if executions < 2
  end
end

# Cannot be done before the order is there.
class NotYet < ActiveJob::Base
  def perform(id)
    Order.exists?(id) or raise Qml::Later.new(0.2, "there is no order #{id}")
  end
end

command, *queues = ARGV
case command
when 'work'
  Qml::Worker.new(queues: queues, lease: Float(ENV.fetch('QML_LEASE', '60'))).run
when 'orders'
  SendReceipt.queue_as queues[0]
  ActiveJob::Base.queue_adapter.enqueue_all((ARGV[2].to_i..ARGV[3].to_i).map { |id| SendReceipt.new(id) })
when 'try'
  jobs = {}
  add = ->(name, job) { jobs[name] = job.enqueue(queue: queues[0]).provider_job_id }
  ActiveRecord::Base.transaction do
    add.call('receipt', SendReceipt.new(1))
    add.call('flaky', Flaky.new(2, 2))
    add.call('hopeless', Flaky.new(3, 9))
    add.call('unlucky', Unlucky.new)
    add.call('later', NotYet.new(9))
    jobs['urgent'] = SendReceipt.set(queue: queues[0], priority: -5).perform_later(4).provider_job_id
    jobs['delayed'] = SendReceipt.set(queue: queues[0], wait: 1.hour).perform_later(4).provider_job_id
    add.call('broken', CheckLog.new(ENV.fetch('QML_LOG', '/dev/null')))
  end
  ActiveRecord::Base.transaction do
    add.call('undone', Unlucky.new)
    raise ActiveRecord::Rollback
  end
  jobs.each { |name, id| puts "#{name} #{id}" }
end
