/*
 * audit.c
 *		The record of what was done by hand: who changed what, when and from where.
 *
 * An act of control is a call of a function by which people or programs steer: they change a
 * job, a queue, a schedule, a registration or a right.  What producers and workers do all the
 * time is none, nor is what the scheduler does, and maintenance when it is called in its place.
 * Each act leaves one row, written in its own transaction: one that is rolled back leaves none.
 * An act that changes nothing leaves none either.
 *
 * Whoever steers writes here through qml_audit_write(), and nowhere else.  For what is a row of
 * a small table, qml_audit_look() is called before the change, under the locks that keep others
 * from changing it, and qml_audit_change() after it.  Both roles are recorded: that of the
 * session and the current one, which differ inside a security-definer function.  qml.actor is
 * what the client says of itself, and is recorded as such.
 *
 * Rows go into the partition of their month, which maintenance makes ahead of need
 * (maintenance/audit_partitions.c), or into the overflow where that is missing, or where
 * somebody has locked it: an act waits for nobody because of its record.
 *
 * An act on jobs of a queue whose commits do not wait for the disk leaves a record that they do
 * not wait for either: a crash that loses the one loses both.
 *
 * The owner of the tables and superusers can change the record; nobody else can.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "common/guc.h"
#include "common/json.h"
#include "common/lazy_commit.h"
#include "common/spi.h"
#include "model/audit.h"
#include "model/catalog.h"

/*
 * Kinds, by the names that the view shows, and the row of one, $1, as a document; NULL: it is
 * described by the caller.  What changes by itself is left out.
 */
static const struct
{
	const char *name;
	const char *look;
} kinds[] = {
	[QML_AUDIT_JOB] = {"job", NULL},
	[QML_AUDIT_QUEUE] =
		{"queue", "SELECT jsonb_strip_nulls(to_jsonb(q) - '{id,name,dropped,created_at}'::text[]) "
				  "FROM qml.queue_data q WHERE q.name = $1 AND NOT q.dropped"},
	[QML_AUDIT_SCHEDULE] =
		{"schedule", "SELECT to_jsonb(r) - '{id,created_at,updated_at,next_run_at,last_run_at,"
					 "fired_through,anchor,last_job,open_jobs,error}'::text[] "
					 "FROM qml.recurring_data r WHERE r.id = $1"},
	[QML_AUDIT_HANDLER] = {"handler", "SELECT to_jsonb(h) - '{method,registered_at}'::text[] "
									  "FROM qml.handler_data h WHERE h.method = $1"},
	[QML_AUDIT_HOOK] = {"hook", "SELECT to_jsonb(h) - "
								"'{name,registered_at,errors,last_error,last_error_at}'::text[] "
								"FROM qml.hook_data h WHERE h.name = $1"},
	[QML_AUDIT_MIDDLEWARE] = {"middleware", "SELECT to_jsonb(m) - '{name,registered_at}'::text[] "
											"FROM qml.middleware_data m WHERE m.name = $1"},
	[QML_AUDIT_ROLE] = {"role", NULL},
	[QML_AUDIT_SERVER] = {"server", NULL},
	[QML_AUDIT_BULK] = {"bulk", NULL},
	/* There is one. */
	[QML_AUDIT_DATABASE] = {"database", "SELECT jsonb_strip_nulls(to_jsonb(p) - 'single') "
										"FROM qml.pause_data p WHERE $1::text IS NULL"},
};

/* ----- where a row goes ----- */

/* A time in UTC. */
static void
split_time(TimestampTz at, struct pg_tm *tm)
{
	fsec_t fsec;

	if (timestamp2tm(at, NULL, tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
}

/* The month of a time, in UTC: its first moment, and that of the next one. */
void
qml_audit_month(TimestampTz at, TimestampTz *lower, TimestampTz *upper)
{
	struct pg_tm tm;

	split_time(at, &tm);
	tm.tm_mday = 1;
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
	if (tm2timestamp(&tm, 0, NULL, lower) != 0)
		*lower = DT_NOBEGIN;
	tm.tm_year += tm.tm_mon / MONTHS_PER_YEAR;
	tm.tm_mon = tm.tm_mon % MONTHS_PER_YEAR + 1;
	if (tm2timestamp(&tm, 0, NULL, upper) != 0)
		*upper = DT_NOEND;
}

/* The name of the partition for that month. */
char *
qml_audit_partition_name(TimestampTz at)
{
	struct pg_tm tm;

	split_time(at, &tm);
	return psprintf("audit_y%04dm%02d", tm.tm_year, tm.tm_mon);
}

/* Whether it is a partition of the record, and not a table that somebody has detached. */
bool
qml_audit_is_partition(Oid leaf)
{
	return get_rel_relispartition(leaf) &&
		   get_partition_parent(leaf, true) ==
			   get_relname_relid(QML_AUDIT_TABLE, qml_catalog()->schema);
}

/* The table for a row, open. */
static Relation
open_table(TimestampTz at)
{
	const QmlCatalog *cat = qml_catalog();
	char *name = qml_audit_partition_name(at);
	Oid leaf = get_relname_relid(name, cat->schema);
	Oid parent = get_relname_relid(QML_AUDIT_TABLE, cat->schema);
	Oid overflow;

	/* Who writes into a partition looks at its parent, too. */
	if (OidIsValid(leaf) && OidIsValid(parent) &&
		ConditionalLockRelationOid(parent, AccessShareLock))
	{
		if (ConditionalLockRelationOid(leaf, RowExclusiveLock))
		{
			/* It may have been dropped or detached before it was locked. */
			if (get_relname_relid(name, cat->schema) == leaf && qml_audit_is_partition(leaf))
				return table_open(leaf, NoLock);
			UnlockRelationOid(leaf, RowExclusiveLock);
		}
		UnlockRelationOid(parent, AccessShareLock);
	}
	overflow = get_relname_relid(QML_AUDIT_OVERFLOW, cat->schema);
	if (!OidIsValid(overflow))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s.%s\" of extension \"qml\" is missing", QML_SCHEMA,
						QML_AUDIT_OVERFLOW),
				 errhint("%s", qml_columns_hint())));
	return table_open(overflow, RowExclusiveLock);
}

/* Whether writing a row of the table runs no code of users, as it does unless they added some. */
static bool
is_plain(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	bool plain = rel->trigdesc == NULL && rel->rd_rules == NULL && !rel->rd_rel->relrowsecurity &&
				 (constr == NULL || constr->num_defval + constr->num_check == 0);
	ListCell *lc;

	foreach(lc, plain ? RelationGetIndexList(rel) : NIL)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		plain = plain && RelationGetIndexExpressions(index) == NIL &&
				RelationGetIndexPredicate(index) == NIL;
		index_close(index, AccessShareLock);
	}
	return plain;
}

/* ----- writing ----- */

/* A role by name, as a text; by number if it was dropped meanwhile. */
static Datum
role_text(Oid role)
{
	char *name = GetUserNameFromId(role, true);

	return CStringGetTextDatum(name ? name : psprintf("%u", role));
}

/* Records an act, as one of the current user. */
void
qml_audit_write(const QmlAuditAct *act)
{
	static const Oid types[] = {TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID,	TEXTOID,
								TEXTOID,		TEXTOID, TEXTOID, JSONBOID, JSONBOID};
	TimestampTz at = GetCurrentTimestamp();
	Datum values[lengthof(types)] = {0};
	bool nulls[lengthof(types)];
	Relation rel;
	uint64 begun;
	bool is_lazy;
	QmlSpi spi;

	values[0] = TimestampTzGetDatum(at);
	values[1] = CStringGetTextDatum(act->action);
	values[2] = CStringGetTextDatum(kinds[act->kind].name);
	if (act->object)
		values[3] = CStringGetTextDatum(act->object);
	if (act->queue)
		values[4] = CStringGetTextDatum(act->queue);
	values[5] = role_text(GetSessionUserId());
	values[6] = role_text(GetUserId());
	if (qml_actor && *qml_actor)
		values[7] = CStringGetTextDatum(qml_actor);
	values[8] = act->before;
	values[9] = act->after;
	nulls[0] = false;
	for (int i = 1; i < (int) lengthof(types); i++)
		nulls[i] = values[i] == (Datum) 0;
	rel = open_table(at);
	is_lazy = act->is_lazy && is_plain(rel);
	qml_spi_begin(&spi, qml_catalog()->owner);
	begun = qml_lazy_commit_begin();
	(void) qml_spi_execute(psprintf("INSERT INTO qml.%s (at, action, object_type, object, queue, "
									"session_role, effective_role, claimed_actor, before, after, "
									"client_address) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, "
									"$10, pg_catalog.inet_client_addr())",
									quote_identifier(RelationGetRelationName(rel))),
						   lengthof(types), types, values, nulls, SPI_OK_INSERT);
	if (is_lazy)
		qml_lazy_commit_end_write(begun);
	qml_spi_end(&spi);
	table_close(rel, NoLock);
}

/*
 * What a small table says of an object now, in any isolation level, as a document in the current
 * memory context; 0: it has no row.
 */
Datum
qml_audit_look(QmlAuditKind kind, const char *object)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = TEXTOID;
	Datum value = object ? CStringGetTextDatum(object) : (Datum) 0;
	bool isnull = object == NULL;
	Datum found = (Datum) 0;
	QmlSpi spi;

	Assert(kinds[kind].look);
	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest(kinds[kind].look, 1, &type, &value, &isnull, SPI_OK_SELECT) > 0)
	{
		Datum row = qml_spi_value(SPI_tuptable, 0, 1, JSONBOID, NULL);
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		found = PointerGetDatum(PG_DETOAST_DATUM_COPY(row));
		MemoryContextSwitchTo(spi_context);
	}
	qml_spi_end(&spi);
	return found;
}

static bool
is_same(Datum a, Datum b)
{
	if (a == (Datum) 0 || b == (Datum) 0)
		return a == b;
	return compareJsonbContainers(&DatumGetJsonbP(a)->root, &DatumGetJsonbP(b)->root) == 0;
}

/* Records an act on an object that was like `before`, unless it is the same now. */
void
qml_audit_change(const char *action, QmlAuditKind kind, const char *object, const char *queue,
				 Datum before)
{
	QmlAuditAct act = {.action = action,
					   .kind = kind,
					   .object = object,
					   .queue = queue,
					   .before = before,
					   .after = qml_audit_look(kind, object)};

	if (!is_same(act.before, act.after))
		qml_audit_write(&act);
}

/* A document that says how many there were. */
Datum
qml_audit_count(const char *name, int64 count)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, name, count);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
