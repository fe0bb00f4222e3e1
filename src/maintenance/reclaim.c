/*
 * reclaim.c
 *		Reclaiming jobs whose worker is lost.
 *
 * A claim ends by itself in three ways: its lease expires; the session that it is
 * bound to is gone (ipc/session_claim.c); or the server that its worker belongs to
 * sent no heartbeat and is given up (maintenance/server.c).  The job becomes ready
 * again, without backoff, because it is not known to have failed; its attempt counts,
 * so that a job which kills its worker ends.  With no retry left it fails.
 *
 * Which claims run, and when each ends, is known in shared memory (ipc/lease_table.c).  A look
 * takes those from there that may be over, and reads their rows: what counts is in the row.
 * So it reads nothing of the jobs that wait, however many there are.
 *
 * Where not all claims are known there, or qml is not preloaded, lost jobs are found by
 * reading all of qml.live, once for all three reasons: the scheduler does so in pieces
 * (maintenance/reading.c), clients at once.
 *
 * The worker that held the claim gets QM003 from then on: the attempt in its token is
 * over.  All of it is the caller's transaction.  See maintenance/job_pass.c for what
 * happens to rows that somebody else is changing and to broken ones.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "compat.h"
#include "ipc/beats.h"
#include "ipc/lease_notes.h"
#include "ipc/session_claim.h"
#include "jobs/transition.h"
#include "maintenance/dead_server.h"
#include "maintenance/job_pass.h"
#include "maintenance/reclaim.h"
#include "model/catalog.h"

/* Attempts under which the server goes down, after which the job fails. */
#define MAX_SERVERS_DOWN 3

/* The server of a job that is being processed; false: it is not, or has none. */
static bool
read_server(TupleTableSlot *slot, const char **server, int *length)
{
	bool isnull;
	Datum value = slot_getattr(slot, LIVE_SERVER, &isnull);

	if (isnull || qml_job_live_state(slot) != QML_PROCESSING)
		return false;
	*server = VARDATA_ANY(DatumGetTextPP(value));
	*length = VARSIZE_ANY_EXHDR(DatumGetTextPP(value));
	return true;
}

/* Whether the session that a claim is bound to is no longer there. */
static bool
is_session_gone(QmlJobPass *pass, TupleTableSlot *slot)
{
	const char *server;
	int length;

	return read_server(slot, &server, &length) && qml_session_claim_is_gone(server, length);
}

/* What the row of a claim says that was taken from the table of leases. */
typedef enum Fate
{
	FATE_NO_ROW = 0, /* or not looked at */
	FATE_ENDED,		 /* the job is not being processed */
	FATE_OVER,
	FATE_GOES_ON,
	FATE_HELD /* another transaction is changing it */
} Fate;

/* A look at claims from that table. */
typedef struct Look
{
	QmlLostSearch lost; /* first, for qml_reclaim_is_over() */
	int count;
	QmlLease *seen; /* in the table */
	QmlLease *rows; /* the claims of FATE_GOES_ON */
	Fate *fates;
	bool *reclaimed;
} Look;

/* Whether the job's server was given up, while it held the job. */
static bool
is_server_dead(QmlLostSearch *search, TupleTableSlot *slot)
{
	const char *server;
	int length;
	bool isnull;

	if (!read_server(slot, &server, &length))
		return false;
	if (search->dead == NULL)
		search->dead = qml_dead_server_read();
	return qml_dead_server_find(search->dead, server, length,
								DatumGetTimestampTz(slot_getattr(slot, LIVE_STARTED_AT, &isnull)));
}

/*
 * QmlJobPass: whether a claim has ended: its lease has expired, its server was given up, or its
 * session is gone where there is no lease.  The argument of the pass begins with a search.
 */
bool
qml_reclaim_is_over(QmlJobPass *pass, TupleTableSlot *slot)
{
	QmlLostSearch *search = unconstify(void *, pass->arg);
	TimestampTz lease;
	bool isnull;

	search->of_server = false;
	/* First what is near the beginning of the row: most jobs are waiting. */
	if (qml_job_live_state(slot) == QML_ENQUEUED)
		return false;
	lease = DatumGetTimestampTz(slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &isnull));
	if (isnull)
		return is_session_gone(pass, slot);
	/* A heartbeat that found the row held is not in it. */
	if (lease <= pass->now)
		lease = qml_beats_end(DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull)),
							  DatumGetInt32(slot_getattr(slot, LIVE_ATTEMPT, &isnull)), lease);
	if (lease <= pass->now)
		return true;
	search->of_server = is_server_dead(search, slot);
	if (!search->of_server && (pass->next_lease == QML_NO_TIME || lease < pass->next_lease))
		pass->next_lease = lease;
	return search->of_server;
}

/* The session did not end because of this job: the attempt does not count. */
static void
give_back(QmlJob *job, TimestampTz now)
{
	qml_transition_set(job, QML_ENQUEUED, now);
	job->uncounted++;
	job->released = true;
	job->lost = true;
}

/* The job's session is gone; how is known only if it left a note. */
static void
reclaim_from_session(QmlJob *job, TimestampTz now)
{
	char *server;
	QmlJobError error = {0};

	/* A lease that was set to -infinity by hand, which is QML_NO_TIME. */
	if (job->server == (Datum) 0)
	{
		qml_transition_lose(job, "lease expired", "lease_expired", now);
		return;
	}
	server = TextDatumGetCString(job->server);
	switch (qml_session_claim_loss_of(server, &job->id, job->attempt))
	{
		case QML_LOST_OVERDUE:
			/* It went on after its timeout, until its process ended: an ordinary failure. */
			error.error = CStringGetTextDatum(qml_job_timeout_message(job));
			error.error_type = CStringGetTextDatum(QML_TIMEOUT);
			qml_transition_fail(job, &error, true, QML_NO_TIME, now);
			return;
		case QML_LOST_IN_GROUP: /* the next attempt runs alone: see process/batch.c */
		case QML_LOST_BESIDE:
			give_back(job, now);
			return;
		default:
			break;
	}

	/*
	 * A job during which the whole server went down several times is taken for the
	 * cause, and must not go on doing so.
	 */
	if (!qml_session_claim_went_with_server(server))
		qml_transition_lose(job,
							qml_session_claim_is_of_job(server) ?
								"the job that fetched it has ended" :
								"session is gone",
							"session_gone", now);
	else if (qml_job_count_errors(job, QML_SERVER_DOWN) < MAX_SERVERS_DOWN - 1)
		qml_transition_lose(job, "server went down", QML_SERVER_DOWN, now);
	else
		qml_transition_give_up(job, "server went down under each of several attempts",
							   QML_SERVER_DOWN, now);
}

/* QmlJobPass: its claim is over. */
void
qml_reclaim_job(QmlJobPass *pass, QmlJob *job)
{
	const QmlLostSearch *search = pass->arg;

	if (search && search->of_server)
		qml_transition_lose(job, "server is gone", "server_gone", pass->now);
	else if (job->lease_expires_at != QML_NO_TIME)
		qml_transition_lose(job, "lease expired", "lease_expired", pass->now);
	else
		reclaim_from_session(job, pass->now);
}

/*
 * The claim of a job that is being processed, as its row shows it; false: it is not, or nothing
 * ends its claim.
 */
bool
qml_reclaim_read_claim(TupleTableSlot *slot, QmlLease *claim)
{
	const char *server;
	int length;
	bool isnull;

	if (qml_job_live_state(slot) != QML_PROCESSING)
		return false;
	memset(claim, 0, sizeof(*claim));
	claim->job = *DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull));
	claim->attempt = DatumGetInt32(slot_getattr(slot, LIVE_ATTEMPT, &isnull));
	claim->end = DatumGetTimestampTz(slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &isnull));
	if (!isnull)
	{
		if (read_server(slot, &server, &length))
			claim->server = qml_lease_table_hash_server(server, length);
		return true;
	}
	claim->end = QML_NO_TIME;
	if (!read_server(slot, &server, &length))
		return false;
	claim->bound = qml_session_claim_find(server, length, &claim->session, &claim->token);
	return claim->bound || qml_session_claim_is_gone(server, length);
}

/* ----- looking at claims that are known ----- */

/* Whether a claim from the table of leases is over; notes what its row says. */
static bool
is_seen_claim_over(QmlJobPass *pass, TupleTableSlot *slot)
{
	Look *look = unconstify(void *, pass->arg);
	QmlLease *row = &look->rows[pass->at];
	Fate *fate = &look->fates[pass->at];

	*fate = FATE_ENDED;
	if (!qml_reclaim_read_claim(slot, row))
		return false;
	*fate = FATE_OVER;
	if (qml_reclaim_is_over(pass, slot))
		return true;
	/* Who is changing the row may be giving it an earlier end. */
	*fate = qml_table_row_fate(slot) == TM_Ok ? FATE_GOES_ON : FATE_HELD;
	if (!row->bound)
		row->end = qml_beats_end(&row->job, row->attempt, row->end);
	return false;
}

/* Whether a job is settled, as below, in the table of a storage class. */
static bool
is_settled_in(QmlTable *live, QmlStoreId store, const pg_uuid_t *id)
{
	Relation pkey = index_open(qml_store(store)->live_pkey, AccessShareLock);
	SnapshotData dirty;
	IndexScanDesc scan;
	ScanKeyData key;
	bool settled = true;

	InitDirtySnapshot(dirty);
	scan = qml_index_beginscan(live->rel, pkey, &dirty, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (settled && index_getnext_slot(scan, ForwardScanDirection, live->slot))
		settled = !TransactionIdIsValid(dirty.xmin) && !TransactionIdIsValid(dirty.xmax) &&
				  qml_job_live_state(live->slot) != QML_PROCESSING;
	index_endscan(scan);
	index_close(pkey, NoLock);
	return settled;
}

/*
 * Whether nobody is changing or adding a job, and it is not being processed, whatever the
 * snapshots show that were taken until now.
 */
static bool
is_settled(const pg_uuid_t *id)
{
	bool settled = true;

	for (int i = 0; i < qml_stores_in_use() && settled; i++)
	{
		QmlTable live;

		qml_table_open(&live, qml_store(i)->live, AccessShareLock);
		settled = is_settled_in(&live, i, id);
		qml_table_close(&live);
	}
	return settled;
}

/* Writes into the table of leases what was found out; returns when to look again. */
static TimestampTz
settle_claims(Look *look, int looked, TimestampTz now)
{
	TimestampTz next = QML_WAKE_NEVER;

	for (int i = 0; i < looked; i++)
	{
		const QmlLease *seen = &look->seen[i];

		CHECK_FOR_INTERRUPTS();
		if (look->reclaimed[i])
			continue; /* the commit removes it */
		if (look->fates[i] == FATE_GOES_ON)
		{
			qml_lease_table_renew(seen, &look->rows[i]);
			if (!look->rows[i].bound)
				next = Min(next, look->rows[i].end);
		}
		else if ((look->fates[i] == FATE_ENDED || look->fates[i] == FATE_NO_ROW) &&
				 is_settled(&seen->job))
			qml_lease_table_drop(seen);
		else
			next = Min(next, qml_lease_table_put_off(seen, now));
	}
	return next;
}

/*
 * Takes claims from the table of leases: `room` at most; returns whether there may be more.  Those
 * of dead servers come beside them, all at once: many of them may go on, or be put off, and would
 * be in the way of others each time.
 */
static bool
find_claims(Look *look, QmlLeaseSearch *wanted, int room, bool of_servers)
{
	uint32 *servers;
	int all;

	look->seen = palloc(sizeof(QmlLease) * room);
	look->count = qml_lease_table_find(wanted, look->seen, room);
	if (look->count == room)
		return true;
	if (!of_servers || !wanted->has_servers)
		return false;
	look->lost.dead = qml_dead_server_read();
	servers = palloc(sizeof(uint32) * Max(look->lost.dead->count, 1));
	for (int i = 0; i < look->lost.dead->count; i++)
		servers[i] = qml_lease_table_hash_server(look->lost.dead->servers[i].id,
												 strlen(look->lost.dead->servers[i].id));
	wanted->nservers = look->lost.dead->count;
	wanted->servers = servers;
	if (wanted->nservers == 0)
		return false;
	all = qml_lease_table_count() + 1;
	look->seen = repalloc(look->seen, sizeof(QmlLease) * Max(all, room));
	look->count = qml_lease_table_find(wanted, look->seen, Max(all, room));
	return false;
}

/* Reclaims up to max of the claims that were found. */
static int
reclaim_found(Look *look, int max, TimestampTz *next)
{
	QmlJobPass pass = {.wants = is_seen_claim_over,
					   .change = qml_reclaim_job,
					   .max = max,
					   .arg = look};
	pg_uuid_t *ids;

	*next = QML_WAKE_NEVER;
	if (look->count == 0)
		return 0;
	ids = palloc(sizeof(pg_uuid_t) * look->count);
	for (int i = 0; i < look->count; i++)
		ids[i] = look->seen[i].job;
	look->rows = palloc(sizeof(QmlLease) * look->count);
	look->fates = palloc0(sizeof(Fate) * look->count);
	look->reclaimed = palloc0(sizeof(bool) * look->count);
	pass.changed = look->reclaimed;
	qml_job_pass_by_id(&pass, ids, look->count);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	*next = settle_claims(look, pass.at, pass.now);
	return pass.count;
}

/*
 * By the scheduler: reclaims up to max jobs of which the table of leases says that they may be
 * lost.  of_servers: also those of servers that were given up.  *next becomes the time of the
 * next look, which is in the past if there may be more of them, or QML_NO_TIME.
 */
int
qml_reclaim_over(int max, bool of_servers, TimestampTz *next)
{
	Look look = {.count = 0};
	QmlLeaseSearch wanted = {.now = GetCurrentTimestamp()};
	TimestampTz again;
	bool more;
	int count;

	(void) qml_catalog_to_work();
	more = find_claims(&look, &wanted, max, of_servers);
	count = reclaim_found(&look, max, &again);
	*next = more || count == max ? wanted.now : Min(wanted.next, again);
	if (*next == QML_WAKE_NEVER)
		*next = QML_NO_TIME;
	return count;
}

/*
 * Whether a look is as good as reading all jobs: not in a transaction that has changed claims
 * itself, or reads what was there when it began.
 */
static bool
can_look(void)
{
	return qml_lease_table_is_known() && !qml_lease_notes_exist() && !IsolationUsesXactSnapshot();
}

/* Reclaims up to max lost jobs by reading all of them. */
static int
read_all(int max)
{
	QmlLostSearch search = {.dead = NULL};
	QmlJobPass pass = {.wants = qml_reclaim_is_over,
					   .change = qml_reclaim_job,
					   .max = max,
					   .arg = &search};

	qml_job_pass_over_all(&pass);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.count;
}

/*
 * Reclaims up to max jobs whose lease has expired, whose session is gone or whose server
 * was given up; returns how many.
 */
int
qml_reclaim_lost(int max)
{
	Look look = {.count = 0};
	QmlLeaseSearch wanted = {.put_off = true};
	TimestampTz next;

	(void) qml_catalog_to_work();
	if (!can_look())
		return read_all(max);
	wanted.now = GetCurrentTimestamp();
	/* More than there are. */
	(void) find_claims(&look, &wanted, qml_lease_table_count() + 1, true);
	return reclaim_found(&look, max, &next);
}

/* ----- others ----- */

/*
 * Reclaims those of some jobs whose session is gone.  Returns how many could not be
 * reclaimed, because somebody else has their rows, who may roll back.
 */
int
qml_reclaim_of_sessions(const pg_uuid_t *ids, int count)
{
	QmlJobPass pass = {.wants = is_session_gone, .change = qml_reclaim_job};

	(void) qml_catalog_to_work();
	qml_job_pass_by_id(&pass, ids, count);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.missed;
}

/* Whether the job is being processed by a worker of the server that arg names. */
static bool
is_of_server(QmlJobPass *pass, TupleTableSlot *slot)
{
	const char *wanted = pass->arg;
	const char *server;
	int length;

	return read_server(slot, &server, &length) && length == (int) strlen(wanted) &&
		   memcmp(server, wanted, length) == 0;
}

static void
reclaim_from_server(QmlJobPass *pass, QmlJob *job)
{
	qml_transition_lose(job, "server is gone", "server_gone", pass->now);
}

/* Goes over the jobs that workers of a server hold, by the table of leases. */
static void
look_for_server(QmlJobPass *pass, const char *server)
{
	uint32 hash = qml_lease_table_hash_server(server, strlen(server));
	QmlLeaseSearch wanted = {.only_servers = true, .nservers = 1, .servers = &hash};
	int room = qml_lease_table_count() + 1;
	QmlLease *found = palloc(sizeof(QmlLease) * room);
	int count = qml_lease_table_find(&wanted, found, room);
	pg_uuid_t *ids = palloc(sizeof(pg_uuid_t) * Max(count, 1));

	for (int i = 0; i < count; i++)
		ids[i] = found[i].job;
	qml_job_pass_by_id(pass, ids, count);
}

/* Reclaims all jobs that workers of a server hold; returns how many. */
int
qml_reclaim_of_server(const char *server)
{
	QmlJobPass pass = {.wants = is_of_server,
					   .change = reclaim_from_server,
					   .max = INT_MAX,
					   .arg = server};

	if (can_look())
		look_for_server(&pass, server);
	else
		qml_job_pass_over_all(&pass);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return pass.count;
}

static bool
is_processing(QmlJobPass *pass, TupleTableSlot *slot)
{
	return qml_job_live_state(slot) == QML_PROCESSING;
}

static void
enqueue_again(QmlJobPass *pass, QmlJob *job)
{
	qml_transition_set(job, QML_ENQUEUED, pass->now);
	job->lost = true;
}

/* Enqueues every job again that is processing, its attempt counted: for a copy. */
void
qml_reclaim_all(void)
{
	QmlJobPass pass = {.wants = is_processing, .change = enqueue_again, .max = INT_MAX};

	qml_job_pass_over_all(&pass);
}
