#!/bin/bash
#
# From a server without qml to a job that is done, after "make install":
#
#   postgresql_setup.sh COMMAND [ARGUMENT ...]
#
# COMMAND restarts the server: pg_ctlcluster 15 main restart, for example.  The connection, as a
# superuser, comes from PGDATABASE, PGHOST and so on.  In that database it makes what a small shop
# needs: a table, a queue, a handler, and three roles.
set -euo pipefail

sql()
{
	psql -Xq -v ON_ERROR_STOP=1 -P footer=off "$@"
}

# Fails after 30 seconds, so that a mistake shows.
wait_until()
{
	local end=$((SECONDS + 30))

	until [ "$(sql -At -c "$1" 2>/dev/null)" = t ]; do
		if [ "$SECONDS" -ge "$end" ]; then
			echo "this does not become true: $1" >&2
			exit 1
		fi
		sleep 0.2
	done
}

if [ "$#" -eq 0 ]; then
	echo "usage: $0 COMMAND [ARGUMENT ...], where COMMAND restarts the server" >&2
	exit 2
fi

echo '== Installed?'
if [ "$(sql -At -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'qml'")" = 0 ]; then
	echo 'qml is not installed: run "make install" in its checkout' >&2
	exit 1
fi
sql -c "SELECT name, default_version FROM pg_available_extensions WHERE name = 'qml'"

echo '== Preloaded?  Other libraries stay in the list.'
if [ "$(sql -At -c "SELECT current_setting('shared_preload_libraries') ~ '\\mqml\\M'")" = f ]; then
	sql <<-'SQL'
		SELECT 'ALTER SYSTEM SET shared_preload_libraries = ' || string_agg(quote_literal(trim(library, ' "')), ', ')
		FROM regexp_split_to_table(current_setting('shared_preload_libraries') || ',qml', ',') AS library
		WHERE library <> '' \gexec
	SQL
	"$@"
	wait_until 'SELECT true'
fi
sql -c 'SHOW shared_preload_libraries'

echo '== The extension, in this database.  Its scheduler starts within seconds.'
sql -c 'CREATE EXTENSION qml'
wait_until "SELECT EXISTS (SELECT FROM qml.server WHERE kind = 'scheduler' AND alive)"
sql -c "SELECT kind, alive FROM qml.server WHERE kind = 'scheduler'"

echo '== Three roles: the shop enqueues, the post office works, an observer looks.'
sql <<-'SQL'
	CREATE ROLE shop LOGIN;
	CREATE ROLE post LOGIN;
	CREATE ROLE observer LOGIN;
	SELECT qml_create_queue('parcels', '{"max_retries": 3, "timeout": "10 seconds"}') AS queue_made;
	SELECT qml_grant('shop', 'enqueue', 'parcels') AS shop_may_enqueue,
		qml_grant('post', 'work', 'parcels') AS post_may_work,
		qml_grant('observer', 'monitor', 'parcels') AS observer_may_look;
SQL

echo '== A handler: each job of the method "send" is a call of this function, as the role post.'
sql <<-'SQL'
	CREATE TABLE parcel (number int PRIMARY KEY, sent_to text);
	GRANT INSERT ON parcel TO post;
	CREATE FUNCTION send_parcel(number int, address text) RETURNS text LANGUAGE sql AS $$
		INSERT INTO parcel VALUES (number, address);
		SELECT 'parcel ' || number || ' is on its way';
	$$;
	SELECT qml_register_handler('send', 'send_parcel', '{"queue": "parcels", "run_as": "post"}') AS registered;
SQL

echo '== The shop enqueues a job, and waits for its end.'
sql <<-'SQL'
	SET ROLE shop;
	SELECT qml_enqueue('send', '{"number": 1, "address": "Elm Road"}', queue => 'parcels') AS job \gset
	CALL qml_wait_for(:'job');
	SELECT created_by, state, result FROM qml_job(:'job');
SQL

echo '== The observer sees that it is done.'
sql <<-'SQL'
	SET ROLE observer;
	SELECT queue, method, state, count(*) FROM qml.job WHERE queue = 'parcels' GROUP BY 1, 2, 3;
SQL

echo '== And the work is there, done once.'
sql -c 'TABLE parcel'
