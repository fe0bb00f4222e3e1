# What the tests share that kill a server with queues of all storage classes and have QmlStorage.pm
# judge what is left: what is there, and what late workers are told.

package QmlCrash;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use QmlTest;

our @EXPORT = qw(commit_prepared create_class_queues say_ends storage_facts wal_writer);

# Queues of the classes, with more options, and what the functions below need.
sub create_class_queues
{
	my ($node, $options, %class_of) = @_;

	query($node, "SELECT qml_create_queue('$_', '{\"storage\": \"$class_of{$_}\", $options}')") foreach sort keys %class_of;
	query($node, <<'SQL');
CREATE TABLE user_row (tx text);
CREATE TABLE token (round text, id uuid, attempt int, expected text, was text, PRIMARY KEY (round, id, attempt));
-- What a worker is told that makes a call.
CREATE FUNCTION answer(call text, t token) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE format('SELECT %I($1, $2)', call) INTO said USING t.id, t.attempt;
	-- That of a heartbeat which crossed the end of its job.
	RETURN CASE WHEN said IS NULL THEN 'late' ELSE 'accepted' END;
EXCEPTION WHEN SQLSTATE 'QM001' OR SQLSTATE 'QM003' THEN
	RETURN 'refused';
END $$;
-- Says the ends of claims that a worker still believes in, after a heartbeat.
CREATE PROCEDURE say_ends(this text) LANGUAGE plpgsql AS $$
DECLARE
	t token;
	beat text;
	answer text;
BEGIN
	FOR t IN SELECT * FROM token WHERE round = this LOOP
		beat := answer('qml_heartbeat', t);
		answer := answer('qml_release', t);
		UPDATE token SET was = CASE WHEN beat = answer OR (beat, answer) = ('late', 'refused') THEN answer
			ELSE 'heartbeat ' || beat || ', end ' || answer END
		WHERE round = this AND id = t.id AND attempt = t.attempt;
	END LOOP;
END $$;
SQL
	return;
}

# What is there after a crash, for the oracle.
sub storage_facts
{
	my ($node) = @_;
	my %facts = (jobs => {}, rows => {});

	foreach my $line (split /\n/, query($node, <<'SQL'))
WITH stored AS (SELECT id, uncounted FROM qml.live UNION ALL SELECT id, uncounted FROM qml.history
	UNION ALL SELECT id, uncounted FROM qml.history_overflow)
SELECT j.id, state, attempt, queue, worker, method, coalesce(uncounted, 0),
	(SELECT string_agg(concat(e ->> 'attempt', ':', e ->> 'error_type'), ',') FROM jsonb_array_elements(errors) e)
FROM qml.job j LEFT JOIN stored USING (id)
SQL
	{
		my ($id, @columns) = split /\|/, $line, -1;
		push @{ $facts{jobs}{$id} },
		  { map { $_ => shift @columns } qw(state attempt queue worker method uncounted errors) };
	}
	$facts{rows}{ (split /\|/)[0] } = (split /\|/)[1]
	  foreach split /\n/, query($node, 'SELECT tx, count(*) FROM user_row GROUP BY 1');
	$facts{unlogged} = query($node, <<'SQL');
SELECT (SELECT count(*) FROM qml.live_unlogged) + (SELECT count(*) FROM qml.history_unlogged)
	+ (SELECT count(*) FROM qml.history_unlogged_overflow)
SQL
	return \%facts;
}

# Says the ends of claims, and what was wrong in the answers.
sub say_ends
{
	my ($node, $oracle, $round, @tokens) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/tokens';

	append_to_file($file, join '', map { "$round\t$_->[0]\t$_->[1]\t$_->[2]\n" } @tokens);
	query($node, "COPY token (round, id, attempt, expected) FROM '$file'; CALL say_ends('$round')");
	return $oracle->judge_answers(map { [ split /\|/ ] } split /\n/,
		query($node, "SELECT id, attempt, expected, was FROM token WHERE round = '$round'"));
}

sub wal_writer
{
	my ($node) = @_;
	my $pid;
	wait_for('the WAL writer',
		sub { $pid = query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}) });
	return $pid;
}

# What was prepared when the server was killed.
sub commit_prepared
{
	my ($node) = @_;
	query($node, "COMMIT PREPARED '$_'") foreach split /\n/, query($node, 'SELECT gid FROM pg_prepared_xacts');
	return;
}

1;
