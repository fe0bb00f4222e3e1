/*
 * cleanup.c
 *		Removing what has expired: finished jobs, named locks, the record of ticks and that of
 *		acts, statistics, dead servers, calls of hooks that are gone, and names of roles that
 *		were dropped.
 *
 * Any number of callers may do this at once.  Nothing here waits for a lock: rows that another
 * transaction is changing, tables that it has locked, and expired partitions that are in use
 * are left to the next call.
 *
 * It has parts, each in a subtransaction: one that fails (a trigger that somebody added raises
 * an error, the disk is full) is undone and told, and stops no other.  Above all it must not
 * keep partitions from being dropped, which is what frees the disk.
 *
 * All of it is the caller's transaction; a crash before its commit leaves everything as it
 * was, and the next call does it again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "common/cache.h"
#include "common/clock.h"
#include "common/guc.h"
#include "common/log.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "jobs/after_commit.h"
#include "jobs/expiry.h"
#include "jobs/overflow.h"
#include "jobs/partition.h"
#include "maintenance/audit_partitions.h"
#include "maintenance/cleanup.h"
#include "maintenance/server.h"
#include "maintenance/stats_rows.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "schedule/occurrence.h"

/* Jobs that one call, or one step, moves out of the overflow at most. */
#define OVERFLOW_MAX   100000
#define OVERFLOW_BATCH 1000

/* Locks a table to delete rows, unless that would have to wait. */
static bool
try_lock(Oid table)
{
	return ConditionalLockRelationOid(table, RowExclusiveLock);
}

/* Returns how many. */
static int64
delete_expired_locks(const QmlCatalog *cat)
{
	QmlSpi spi;
	uint64 deleted;

	if (!try_lock(cat->lock))
		return 0;
	qml_spi_begin(&spi, cat->owner);
	/* A lock that somebody is taking over just now is left alone. */
	deleted = qml_spi_execute("DELETE FROM qml.lock_data WHERE resource IN "
							  "(SELECT l.resource FROM qml.lock_data l "
							  "WHERE l.expires_at <= pg_catalog.clock_timestamp() "
							  "FOR UPDATE SKIP LOCKED)",
							  0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	return (int64) deleted;
}

/* The role of a row is one that there is not any more. */
#define DROPPED "NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = t.%s)"

/*
 * Changes the rows of a table that name a dropped role in a column; cached: all backends read
 * the table again then.  A look first, because a change is one for all of them.
 */
static void
change_of_dropped(Oid table, const char *name, const char *column, const char *change, int expected,
				  bool cached)
{
	char *condition = psprintf(DROPPED, column);

	if (expected == SPI_OK_UPDATE)
		condition = psprintf("t.%s <> 0 AND %s", column, condition);
	if (!try_lock(table) ||
		qml_spi_execute(psprintf("SELECT FROM qml.%s t WHERE %s", name, condition), 0, NULL, NULL,
						NULL, SPI_OK_SELECT) == 0)
		return;
	if (qml_spi_execute(psprintf("%s WHERE t.ctid IN (SELECT t.ctid FROM qml.%s t WHERE %s "
								 "FOR UPDATE SKIP LOCKED)",
								 change, name, condition),
						0, NULL, NULL, NULL, expected) > 0 &&
		cached)
		qml_cache_changed(table);
}

/*
 * Rows that name a role which was dropped give nobody anything.  But a dump would
 * contain the number of the role, and where it is restored that may be another role's.
 * The tables are in the order in which maintenance/role_objects.c takes them.
 */
static void
forget_dropped_roles(const QmlCatalog *cat)
{
	const struct
	{
		Oid oid;
		const char *table;
		const char *column;
		bool cached;
	} roles[] = {
		{cat->recurring, "recurring_data", "created_by", false},
		{cat->handler, "handler_data", "owner", true},
		{cat->handler, "handler_data", "run_as", true},
		{cat->handler, "handler_data", "registered_by", true},
		{cat->hook, "hook_data", "owner", true},
		{cat->hook, "hook_data", "run_as", true},
		{cat->middleware, "middleware_data", "owner", true},
		{cat->middleware, "middleware_data", "run_as", true},
	};
	QmlSpi spi;

	qml_spi_begin(&spi, cat->owner);
	/* What is registered stays, so that it can be seen why its jobs wait. */
	for (int i = 0; i < (int) lengthof(roles); i++)
		change_of_dropped(roles[i].oid, roles[i].table, roles[i].column,
						  psprintf("UPDATE qml.%s t SET %s = 0", roles[i].table, roles[i].column),
						  SPI_OK_UPDATE, roles[i].cached);
	change_of_dropped(cat->acl, "acl_data", "grantee", "DELETE FROM qml.acl_data t", SPI_OK_DELETE,
					  true);
	qml_spi_end(&spi);
}

/* Rows that are kept for a time, and what removes those that are older. */
static void
forget_old(const QmlCatalog *cat)
{
	static const struct
	{
		const char *table;
		const char *removal;
	} kept[] = {
		{"mark_data", "DELETE FROM qml.mark_data WHERE ctid IN "
					  "(SELECT m.ctid FROM qml.mark_data m WHERE m.at < "
					  "pg_catalog.statement_timestamp() - interval '30 days' "
					  "FOR UPDATE SKIP LOCKED)"},
		{"alert_data", "DELETE FROM qml.alert_data WHERE ctid = ANY (ARRAY("
					   "SELECT a.ctid FROM qml.alert_data a WHERE a.until < "
					   "pg_catalog.statement_timestamp() - interval '30 days' "
					   "LIMIT 1000 FOR UPDATE SKIP LOCKED))"},
	};
	QmlSpi spi;

	qml_spi_begin(&spi, cat->owner);
	for (int i = 0; i < (int) lengthof(kept); i++)
	{
		Oid relid = get_relname_relid(kept[i].table, cat->schema);

		if (OidIsValid(relid) && try_lock(relid))
			(void) qml_spi_execute(kept[i].removal, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	}
	qml_spi_end(&spi);
}

/* Part: everything that has expired but jobs and ticks.  arg: QmlCleanup. */
static void
remove_rows(void *arg)
{
	const QmlCatalog *cat = qml_catalog_to_work();
	QmlCleanup *done = arg;

	forget_dropped_roles(cat);
	if (try_lock(cat->stores[QML_STORE_LOGGED].live) && try_lock(cat->hook))
		(void) qml_after_commit_forget();
	if (try_lock(cat->server))
		qml_server_forget();
	forget_old(cat);
	done->locks += delete_expired_locks(cat);
}

/* Part: the partitions that are needed next. */
static void
make_partitions(void *arg)
{
	QmlCleanup *done = arg;

	qml_partition_mend(QML_STORE_LOGGED);
	for (int i = 0; i < QML_STORES; i++)
		done->prepared += qml_partition_make_ahead(i, qml_queue_ttls(i), NULL);
}

/* Part: jobs that have finished without a partition. */
static void
empty_overflow(void *arg)
{
	QmlCleanup *done = arg;

	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		QmlOverflow overflow;

		qml_overflow_empty(i, OVERFLOW_MAX, NULL, &overflow);
		done->jobs += overflow.expired;
	}
}

/* Part: the partitions that have expired. */
static void
drop_partitions(void *arg)
{
	QmlCleanup *done = arg;

	for (int i = 0; i < QML_STORES; i++)
	{
		int partitions;

		done->jobs += qml_expiry_drop_all(i, &partitions);
		done->partitions += partitions;
	}
}

/* Part: the record of ticks, and statistics. */
static void
forget_ticks(void *arg)
{
	if (try_lock(qml_catalog_to_work()->occurrence))
		qml_occurrence_forget();
	qml_stats_rows_forget();
}

/* Part: the partitions of the record of acts. */
static void
keep_audit(void *arg)
{
	(void) qml_catalog_to_work();
	/* Without queues, a dump is perhaps being restored: what comes next must not be there. */
	if (qml_queue_all() != NIL)
	{
		qml_audit_partitions_make();
		qml_audit_partitions_settle();
	}
	qml_audit_partitions_drop();
}

/* The same for the scheduler, which makes them in another step. */
static void
drop_audit(void *arg)
{
	qml_audit_partitions_drop();
}

/* And what that step does. */
static void
prepare_audit(void *arg)
{
	qml_audit_partitions_make();
	qml_audit_partitions_settle();
}

/*
 * Partitions are dropped and emptied last: they are locked from then to the end of the
 * transaction, the history, too.
 */
const QmlCleanupPart qml_cleanup_parts[QML_CLEANUP_PARTS] = {
	{"cleanup", remove_rows},	 {"partitions", make_partitions}, {"overflow", empty_overflow},
	{"expiry", drop_partitions}, {"ticks", forget_ticks},		  {"audit", keep_audit},
};

/* Runs a part in a subtransaction.  False: it failed, which is told. */
static bool
try_part(const char *name, void (*run)(void *arg), void *arg)
{
	QmlFailure failure;

	if (qml_subxact_try(run, arg, qml_subxact_ends_call, &failure))
		return true;
	if (MyBackendType != B_BG_WORKER || qml_log_is_due(QML_LOG_CLEANUP))
		ereport(WARNING,
				(errcode(failure.sqlerrcode),
				 errmsg("step \"%s\" of the cleanup failed: %s (SQLSTATE %s)", name,
						failure.message, unpack_sql_state(failure.sqlerrcode)),
				 errdetail("It is undone; the other steps are not."),
				 failure.hint ? errhint("%s", failure.hint) : 0));
	return false;
}

/* Removes what has expired, and makes the partitions that are needed next: all parts. */
void
qml_cleanup_expired(QmlCleanup *done)
{
	/* A copy of a database: none of the parts would work. */
	(void) qml_catalog_to_work();
	memset(done, 0, sizeof(*done));
	for (int i = 0; i < QML_CLEANUP_PARTS; i++)
	{
		QmlCleanup before = *done;

		if (!try_part(qml_cleanup_parts[i].name, qml_cleanup_parts[i].run, done))
			*done = before;
	}
}

/* Part, for the scheduler: one partition that has expired, or a piece of it. */
typedef struct ExpiryStep
{
	bool more;
	bool waiting;
} ExpiryStep;

static void
drop_partition(void *arg)
{
	ExpiryStep *step = arg;

	step->more = step->waiting = false;
	for (int i = 0; i < QML_STORES; i++)
	{
		bool waiting;

		if (!qml_expiry_step(i, &waiting))
			continue;
		step->more = true;
		step->waiting = waiting;
		/* One partition, or a piece of it, is enough. */
		if (!waiting)
			return;
	}
}

/*
 * One short step of removing what has expired, for the scheduler: at most one partition.
 * Returns whether there is more: at once, or (*waiting) when readers have gone.
 */
bool
qml_cleanup_step(QmlCleanupState *state, bool *waiting)
{
	int64 now = qml_clock_monotonic_ms();
	bool goes_on = state->dropping;
	ExpiryStep expiry = {0};

	state->dropping = false; /* also after an error */
	*waiting = false;
	(void) qml_catalog_to_work();
	/* A partition may wait for its readers for days. */
	if (!goes_on || now - state->removed >= (int64) qml_cleanup_interval * 1000)
	{
		QmlCleanup done = {0};

		/* A step of its own: the partitions of ticks are locked to the end of the transaction. */
		state->forgot = !state->forgot;
		if (state->forgot)
		{
			(void) try_part("ticks", forget_ticks, &done);
			return true;
		}
		(void) try_part("cleanup", remove_rows, &done);
		(void) try_part("audit", drop_audit, &done);
		state->removed = now;
	}
	/* What was removed above stays so if the partitions cannot be looked for. */
	if (try_part("expiry", drop_partition, &expiry))
	{
		state->dropping = expiry.more;
		*waiting = expiry.waiting;
	}
	return state->dropping;
}

/* A piece of emptying an overflow. */
typedef struct OverflowPiece
{
	QmlStoreId store;
	QmlWalk walk;
	QmlOverflow done;
} OverflowPiece;

static void
run_overflow_piece(void *arg)
{
	OverflowPiece *piece = arg;

	qml_overflow_empty(piece->store, OVERFLOW_BATCH, &piece->walk, &piece->done);
}

/* Empties a piece of the overflow of a storage class; returns whether there is more. */
static bool
settle_piece(QmlCleanupState *state, QmlStoreId store, bool *failed)
{
	OverflowPiece piece = {.store = store, .walk = state->walks[store]};
	bool began = piece.walk.next > 0;
	bool *settled = &state->settled[store];

	memset(&state->walks[store], 0, sizeof(QmlWalk)); /* also after an error */
	/* The partitions are needed most where the overflow cannot be read or written. */
	if (!try_part("overflow", run_overflow_piece, &piece))
	{
		*settled = false;
		*failed = true;
		return false;
	}
	state->walks[store] = piece.walk;
	*failed = *failed || piece.done.failed;
	*settled = *settled || piece.done.moved + piece.done.expired > 0;
	if (piece.done.more)
		return true;
	/* Rows may have come behind a walk of several pieces, which has made room there. */
	began = began && *settled;
	*settled = false;
	return began;
}

/*
 * Makes the partitions that are needed next, and moves jobs there that found none, in one
 * short step.  Returns whether there is more to move.  *failed: a partition could not be
 * made, or written.
 */
bool
qml_cleanup_prepare(QmlCleanupState *state, bool *failed)
{
	bool any_queues = false;
	bool more = false;

	(void) qml_catalog_to_work();
	*failed = false;
	for (int i = 0; i < QML_STORES; i++)
	{
		List *ttls = qml_queue_ttls(i);
		bool has_failed;

		any_queues = any_queues || ttls != NIL;
		if (ttls == NIL)
			continue;
		if (i == QML_STORE_LOGGED)
			qml_partition_mend(i);
		(void) qml_partition_make_ahead(i, ttls, &has_failed);
		*failed = *failed || has_failed;
	}
	/* Without queues, a dump is perhaps being restored: what comes next must not be there. */
	for (int i = 0; any_queues && i < qml_stores_in_use(); i++)
		more = settle_piece(state, i, failed) || more;
	if (any_queues)
		*failed = !try_part("audit", prepare_audit, NULL) || *failed;
	return more;
}
