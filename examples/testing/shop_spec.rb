# Tests of jobs with RSpec and pg.
#
# Each example is a transaction that is rolled back: no worker sees its jobs, and nothing is left.
# The connection comes from PGDATABASE, PGHOST and so on; its user is the role of the handlers.
#
#     PGUSER=shop rspec shop_spec.rb

require 'json'
require 'pg'

RSpec.describe 'the jobs of the shop' do
  around do |example|
    @db = PG.connect
    @db.type_map_for_results = PG::BasicTypeMapForResults.new(@db)
    @db.exec('BEGIN')
    @db.exec("INSERT INTO orders VALUES (1, 'Ada')")
    example.run
  ensure
    @db.exec('ROLLBACK')
    @db.close
  end

  def query(text, *values)
    @db.exec_params(text, values).to_a
  end

  def enqueue(method, queue, payload)
    query('SELECT qml_enqueue($1, $2, queue => $3) AS id', method, payload.to_json, queue)[0]['id']
  end

  # Runs a job here and now, and returns it as it is afterwards.
  def run(id)
    query('SELECT * FROM qml_run($1)', id)[0]
  end

  # Runs all jobs that there are, and those that they make; returns how many.
  def drain(scheduled: false)
    query('SELECT qml_drain(scheduled => $1) AS count', scheduled)[0]['count']
  end

  def receipts
    query('SELECT customer FROM receipts').map { |row| row['customer'] }
  end

  it 'runs a job' do
    job = run(enqueue('send_receipt', 'mail', order: 1))
    expect(job).to include('state' => 'succeeded', 'result' => 'Ada')
    expect(receipts).to eq ['Ada']
  end

  it 'records the error of a job' do
    job = run(enqueue('ship', 'orders', order: 2))
    expect(job).to include('state' => 'awaiting_retry', 'error' => 'there is no order 2')
    expect(job['errors'][0]).to include('error_type' => 'P0002')
    # What it did is undone, and the transaction goes on.
    expect(drain).to eq 0
    # The next attempt, without waiting for its time.
    query("INSERT INTO orders VALUES (2, 'Bob')")
    expect(run(job['id'])).to include('state' => 'succeeded', 'tries' => 2)
  end

  it 'runs jobs that make jobs' do
    enqueue('ship', 'orders', order: 1)
    expect(drain).to eq 2
    expect(receipts).to eq ['Ada']
    # The reminder of tomorrow.
    expect(drain(scheduled: true)).to eq 1
    expect(receipts).to eq %w[Ada Ada]
  end

  it 'can be the worker outside the database' do
    id = enqueue('print_label', 'orders', order: 1)
    job = query("SELECT * FROM qml_fetch_job($1, 'test')", id)[0]
    expect(job).to include('method' => 'print_label', 'payload' => { 'order' => 1 }, 'attempt' => 1)
    failed = query("SELECT qml_fail($1, $2, 'out of paper') AS state", id, job['attempt'])[0]
    expect(failed['state']).to eq 'awaiting_retry'
  end

  it 'leaves nothing' do
    query('ROLLBACK')
    expect(query('SELECT count(*) FROM qml.job')).to eq [{ 'count' => 0 }]
  end
end
