/*
 * shape.c
 *		What was done to qml's tables by hand, and whether qml can still work with them.
 *
 * The tables have an owner, who may alter them and write into them, and is not always a
 * superuser.  Whatever that leads to, no process may crash and nothing may be passed over in
 * silence.  There are two kinds of changes:
 *
 *	 - C code reads rows by the numbers of their columns, and searches indexes without a
 *	   plan.  It relies on what is checked here: the table is one, its columns cannot be NULL
 *	   where a value is needed, the index has these keys.  If not, every call is refused.
 *	 - What the executor does for each row that is written (triggers, foreign keys, check
 *	   constraints, rules, row security) writing below it does not.  If somebody added such a
 *	   thing, calls that write the table are refused.
 *
 * Both are error 55000, and the hint says how to go back.  A table is checked when it is
 * opened, with its lock held, so that it stays as it is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "nodes/primnodes.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"

#include "compat.h"
#include "core/state.h"
#include "model/columns.h"
#include "model/shape.h"
#include "qml.h"

/* Most columns of a table that can be NULL, and keys of an index. */
#define MAX_NULLABLE 15
#define MAX_KEYS	 3

/* Of the library that tests build as the next version. */
#ifdef QML_NEXT
#define LIVE_LATER	  , LIVE_NOTE
#define HISTORY_LATER , HISTORY_NOTE
#else
#define LIVE_LATER
#define HISTORY_LATER
#endif

/* Of the history, its partitions, and the overflow. */
#define HISTORY_COLUMNS                                                               \
	.natts = HISTORY_NATTS, .numbered = HISTORY_NUMBERED, .table = QML_TABLE_HISTORY, \
	.is_direct = true,                                                                \
	.nullable = {LIVE_ATTEMPT,                                                        \
				 LIVE_READY_AT,                                                       \
				 HISTORY_STARTED_AT,                                                  \
				 HISTORY_TIMEOUT_MS,                                                  \
				 HISTORY_UNCOUNTED,                                                   \
				 HISTORY_WORKER,                                                      \
				 HISTORY_SERVER,                                                      \
				 HISTORY_JOB_TYPE,                                                    \
				 HISTORY_METADATA,                                                    \
				 HISTORY_PROGRESS,                                                    \
				 HISTORY_ERRORS,                                                      \
				 HISTORY_REASON,                                                      \
				 HISTORY_RESULT HISTORY_LATER}

/*
 * Columns that can be NULL, up to the first 0; the others up to `natts` cannot.  Those up to
 * `numbered` have these numbers, later ones are found by name; 0: there are no later ones.
 */
static const struct
{
	int natts;
	int numbered;
	QmlKnownTable table; /* if there are */
	bool is_direct;		 /* rows are written below the executor */
	int nullable[MAX_NULLABLE + 1];
} tables[] = {
	[QML_SHAPE_LIVE] = {.natts = LIVE_NATTS,
						.numbered = LIVE_NUMBERED,
						.table = QML_TABLE_LIVE,
						.is_direct = true,
						.nullable = {LIVE_ATTEMPT, LIVE_READY_AT, LIVE_RUN_AT, LIVE_STARTED_AT,
									 LIVE_LEASE_EXPIRES_AT, LIVE_TIMEOUT_MS, LIVE_UNCOUNTED,
									 LIVE_WORKER, LIVE_SERVER, LIVE_JOB_TYPE, LIVE_METADATA,
									 LIVE_PROGRESS, LIVE_ERRORS, LIVE_REASON LIVE_LATER}},
	[QML_SHAPE_HISTORY] = {HISTORY_COLUMNS},
	[QML_SHAPE_LEAF] = {HISTORY_COLUMNS},
	[QML_SHAPE_OVERFLOW] = {HISTORY_COLUMNS},
	[QML_SHAPE_RECURRING] = {.natts = RECURRING_NATTS,
							 .is_direct = true,
							 .nullable = {RECURRING_NEXT_RUN_AT, RECURRING_LAST_RUN_AT,
										  RECURRING_FIRED_THROUGH, RECURRING_ANCHOR,
										  RECURRING_LAST_JOB, RECURRING_MAX_RETRIES,
										  RECURRING_TIMEOUT_MS, RECURRING_JOB_TYPE,
										  RECURRING_METADATA, RECURRING_ERROR, RECURRING_PAUSED_AT,
										  RECURRING_PAUSED_BY, RECURRING_PAUSE_REASON,
										  RECURRING_OPEN_JOBS, RECURRING_IMPORTED}},
	[QML_SHAPE_OCCURRENCE] = {.natts = OCCURRENCE_NATTS,
							  .is_direct = true,
							  .nullable = {OCCURRENCE_JOB, OCCURRENCE_THROUGH}},
	[QML_SHAPE_QUEUE] = {.natts = QUEUE_OPTIONS},
	[QML_SHAPE_HANDLER] = {.natts = HANDLER_NATTS},
	[QML_SHAPE_HOOK] = {.natts = HOOK_NATTS,
						.nullable = {HOOK_STATES, HOOK_LAST_ERROR, HOOK_LAST_ERROR_AT}},
	[QML_SHAPE_MIDDLEWARE] = {.natts = MIDDLEWARE_NATTS},
	[QML_SHAPE_ACL] = {.natts = ACL_QUEUE, .nullable = {ACL_QUEUE}},
	[QML_SHAPE_INSTANCE] = {.natts = INSTANCE_DATABASE},
	[QML_SHAPE_OTHER] = {.natts = 0},
};

/* The keys of an index: columns of its table, up to the first 0. */
static const struct
{
	const char *definition; /* for the hint; %s: the table */
	bool is_unique;
	struct
	{
		int column;
		Oid type;
		bool is_descending;
	} keys[MAX_KEYS + 1];
} indexes[] = {
	[QML_INDEX_LIVE_PKEY] = {"PRIMARY KEY (id)", true, {{LIVE_ID, UUIDOID, false}}},
	[QML_INDEX_LIVE_READY] = {"(queue_id, priority DESC, id) WHERE run_at IS NULL",
							  false,
							  {{LIVE_QUEUE_ID, INT4OID, false},
							   {LIVE_PRIORITY, INT4OID, true},
							   {LIVE_ID, UUIDOID, false}}},
	[QML_INDEX_LIVE_DUE] = {"(run_at) WHERE run_at IS NOT NULL",
							false,
							{{LIVE_RUN_AT, TIMESTAMPTZOID, false}}},
	[QML_INDEX_LEAF_ID] = {"(id)", false, {{LIVE_ID, UUIDOID, false}}},
	[QML_INDEX_RECURRING_DUE] = {"(next_run_at) WHERE enabled AND next_run_at IS NOT NULL",
								 false,
								 {{RECURRING_NEXT_RUN_AT, TIMESTAMPTZOID, false}}},
	[QML_INDEX_OCCURRENCE] = {"(recurring, occurrence)",
							  false,
							  {{OCCURRENCE_RECURRING, TEXTOID, false},
							   {OCCURRENCE_AT, TIMESTAMPTZOID, false}}},
	[QML_INDEX_ACL_QUEUE] = {"(grantee, capability, queue) WHERE queue IS NOT NULL",
							 true,
							 {{ACL_GRANTEE, OIDOID, false},
							  {ACL_CAPABILITY, TEXTOID, false},
							  {ACL_QUEUE, TEXTOID, false}}},
	[QML_INDEX_ACL_ALL] = {"(grantee, capability) WHERE queue IS NULL",
						   true,
						   {{ACL_GRANTEE, OIDOID, false}, {ACL_CAPABILITY, TEXTOID, false}}},
};

/* ----- what C code relies on ----- */

static void
raise_altered(Relation rel, char *detail, char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s.%s\" was altered, and qml cannot work with it", QML_SCHEMA,
					RelationGetRelationName(rel)),
			 errdetail("%s", detail), errhint("%s", hint)));
}

static bool
is_nullable(QmlShape shape, int known)
{
	for (const int *nullable = tables[shape].nullable; *nullable != 0; nullable++)
	{
		if (*nullable == known)
			return true;
	}
	return false;
}

/* A partition, a child or a parent of another table has rows that this one has not. */
static void
check_kind(Relation rel, QmlShape shape)
{
	char kind = shape == QML_SHAPE_HISTORY ? RELKIND_PARTITIONED_TABLE : RELKIND_RELATION;

	if (rel->rd_rel->relkind != kind)
		raise_altered(rel,
					  psprintf("It is not %s.", kind == RELKIND_RELATION ? "an ordinary table" :
																		   "a partitioned table"),
					  shape == QML_SHAPE_LEAF ?
						  "Detach the partition, or drop it." :
						  "Drop and create the extension, or restore it from a backup.");
	/* Rows of the ledger are written into its partitions, also if one of them was detached. */
	if (shape != QML_SHAPE_OCCURRENCE && rel->rd_rel->relispartition != (shape == QML_SHAPE_LEAF))
	{
		/* A partition was detached after it was chosen. */
		if (shape == QML_SHAPE_LEAF)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension \"qml\" was dropped or changed by another session"),
					 errhint("Try again.")));
		raise_altered(rel, "It is a partition of another table.", "Detach it.");
	}
	/* The flag may be left from a child that is gone. */
	if (shape != QML_SHAPE_HISTORY && rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		raise_altered(
			rel, "Another table inherits from it.",
			"Drop the other table, or end its inheritance by ALTER TABLE ... NO INHERIT.");
}

/* The history is searched for the partition of a time. */
static void
check_partition_key(Relation rel)
{
	PartitionKey key = RelationGetPartitionKey(rel);

	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] != HISTORY_EXPIRES_AT || key->parttypid[0] != TIMESTAMPTZOID)
		raise_altered(rel, "It is not partitioned by range of \"expires_at\".",
					  "Drop and create the extension, or restore it from a backup.");
}

/* A known column, and its number in this table. */
static void
check_column(Relation rel, QmlShape shape, int known, int attnum)
{
	TupleDesc desc = RelationGetDescr(rel);
	Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
	const char *name = NameStr(att->attname);
	const char *table = RelationGetRelationName(rel);

	if (!is_nullable(shape, known))
	{
		if (!qml_column_is_not_null(desc, attnum - 1))
			raise_altered(rel, psprintf("Column \"%s\" can be NULL.", name),
						  psprintf("Run ALTER TABLE %s.%s ALTER COLUMN %s SET NOT NULL.",
								   QML_SCHEMA, table, quote_identifier(name)));
		return;
	}
	/* Nothing would check it. */
	if (tables[shape].is_direct && att->attnotnull)
		raise_altered(rel, psprintf("Column \"%s\" cannot be NULL.", name),
					  psprintf("Run ALTER TABLE %s.%s ALTER COLUMN %s DROP NOT NULL.", QML_SCHEMA,
							   table, quote_identifier(name)));
}

/* Raises 55000 if C code cannot rely on what it must know of the table. */
void
qml_shape_check(Relation rel, QmlShape shape)
{
	TupleDesc desc = RelationGetDescr(rel);
	int numbered = tables[shape].numbered ? tables[shape].numbered : tables[shape].natts;

	check_kind(rel, shape);
	if (shape == QML_SHAPE_HISTORY)
		check_partition_key(rel);
	for (int known = 1; known <= Min(numbered, desc->natts); known++)
		check_column(rel, shape, known, known);
	for (int known = numbered + 1; known <= tables[shape].natts; known++)
	{
		int attnum = qml_columns_number(tables[shape].table, desc, known);

		if (attnum)
			check_column(rel, shape, known, attnum);
	}
}

/* Whether an index has the keys that it is searched by. */
bool
qml_shape_index_fits(Relation index, QmlIndexShape shape)
{
	int nkeys = 0;

	if (index->rd_rel->relam != BTREE_AM_OID || !index->rd_index->indisvalid)
		return false;
	for (; indexes[shape].keys[nkeys].column != 0; nkeys++)
	{
		if (nkeys >= index->rd_index->indnkeyatts ||
			index->rd_index->indkey.values[nkeys] != indexes[shape].keys[nkeys].column ||
			index->rd_opcintype[nkeys] != indexes[shape].keys[nkeys].type ||
			((index->rd_indoption[nkeys] & INDOPTION_DESC) != 0) !=
				indexes[shape].keys[nkeys].is_descending)
			return false;
	}
	return index->rd_index->indnkeyatts == nkeys &&
		   (!indexes[shape].is_unique || index->rd_index->indisunique);
}

/* Whether it is an index of the table that has these keys; false if there is no such relation. */
bool
qml_shape_is_index(Oid table, Oid index, QmlIndexShape shape)
{
	Relation rel = try_relation_open(index, AccessShareLock);
	bool fits;

	if (rel == NULL)
		return false;
	fits = rel->rd_rel->relkind == RELKIND_INDEX && rel->rd_index->indrelid == table &&
		   qml_shape_index_fits(rel, shape);
	relation_close(rel, AccessShareLock);
	return fits;
}

/*
 * Opens the table's first index that fits; NULL if none does.  Unless wait, an index that is locked
 * against readers is passed over, and *locked says so.  The table is locked, so none of its
 * indexes can go.
 *
 * An index that is built anew beside the old one takes its place between two looks: the new one
 * is not valid yet, and then the old one no longer.  Whoever heard of a change looks again.
 */
Relation
qml_shape_find_index(Relation table, QmlIndexFits fits, const void *arg, bool wait, bool *locked)
{
	uint64 heard;

	do
	{
		List *oids = RelationGetIndexList(table);
		ListCell *lc;

		heard = SharedInvalidMessageCounter;
		*locked = false;
		foreach(lc, oids)
		{
			Relation index;

			if (!wait && !ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			{
				*locked = true;
				continue;
			}
			index = index_open(lfirst_oid(lc), wait ? AccessShareLock : NoLock);
			if (fits(table, index, arg))
				return index;
			index_close(index, AccessShareLock);
		}
		list_free(oids);
	} while (SharedInvalidMessageCounter != heard);
	return NULL;
}

/* QmlIndexFits: it has the keys of the shape, and all rows. */
static bool
has_all_rows(Relation table, Relation index, const void *arg)
{
	return qml_shape_index_fits(index, *(const QmlIndexShape *) arg) &&
		   RelationGetIndexPredicate(index) == NIL;
}

/* The same for an index with these keys and all rows. */
Relation
qml_shape_open_index(Relation table, QmlIndexShape shape, bool wait, bool *locked)
{
	return qml_shape_find_index(table, has_all_rows, &shape, wait, locked);
}

/* Raises 55000 for an index that does not have these keys. */
void
qml_shape_raise_index(Oid table, Oid index, QmlIndexShape shape)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("index \"%s.%s\" was altered, and qml cannot work with it", QML_SCHEMA,
					get_rel_name(index)),
			 errhint("Drop it, and create a btree index of this name on \"%s.%s\": %s.", QML_SCHEMA,
					 get_rel_name(table), indexes[shape].definition)));
}

/* ----- what was added ----- */

/* Whether the executor would call the trigger in this session. */
static bool
is_trigger_enabled(const Trigger *trigger)
{
	switch (trigger->tgenabled)
	{
		case TRIGGER_DISABLED:
			return false;
		case TRIGGER_FIRES_ALWAYS:
			return true;
		case TRIGGER_FIRES_ON_REPLICA:
			return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
		default:
			return SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
	}
}

/* Whether it is a trigger for statements with this function. */
static bool
is_own_trigger(const Trigger *trigger, Oid function)
{
	return OidIsValid(function) && trigger->tgfoid == function && !TRIGGER_FOR_ROW(trigger->tgtype);
}

/*
 * Whether a check constraint is that of the states which jobs of the table have: every change of
 * a job keeps it (core/state.c).  It is there for the planner.
 */
static bool
is_check_of_states(Relation rel, const ConstrCheck *check, const Oid *labels)
{
	const char *column = NameStr(TupleDescAttr(RelationGetDescr(rel), LIVE_RUN_AT - 1)->attname);
	bool live = strcmp(column, "run_at") == 0;
	const ScalarArrayOpExpr *expression;
	const ArrayExpr *array;

	if (strcmp(check->ccname, live ? "live_state" : "history_state") != 0)
		return false;
	expression = stringToNode(check->ccbin);
	if (!IsA(expression, ScalarArrayOpExpr) || !expression->useOr ||
		expression->opfuncid != F_ENUM_EQ || !IsA(linitial(expression->args), Var) ||
		((const Var *) linitial(expression->args))->varattno != LIVE_STATE ||
		!IsA(lsecond(expression->args), ArrayExpr))
		return false;
	array = lsecond(expression->args);
	for (int state = 0; state < QML_STATES; state++)
	{
		bool found = qml_state_is_final(state) == live;
		ListCell *lc;

		foreach(lc, array->elements)
		{
			const Const *element = lfirst(lc);

			if (IsA(element, Const) && !element->constisnull &&
				DatumGetObjectId(element->constvalue) == labels[state])
				found = true;
		}
		if (!found)
			return false;
	}
	return true;
}

/* The same; remembers the last ones, because tables are opened often and parsing is slow. */
static bool
is_known_check(Relation rel, const ConstrCheck *check, const Oid *labels)
{
	static char *known[8];
	static int next = 0;

	if (labels == NULL || RelationGetDescr(rel)->natts < LIVE_RUN_AT)
		return false;
	for (int i = 0; i < (int) lengthof(known); i++)
	{
		if (known[i] && strcmp(known[i], check->ccbin) == 0)
			return true;
	}
	if (!is_check_of_states(rel, check, labels))
		return false;
	if (known[next])
		pfree(known[next]);
	known[next] = NULL;
	known[next] = MemoryContextStrdup(TopMemoryContext, check->ccbin);
	next = (next + 1) % (int) lengthof(known);
	return true;
}

/*
 * What the executor would do for a row that is written; NULL: nothing.  Foreign keys, in both
 * directions, and constraints that can be deferred have triggers too.
 */
static char *
find_addition(Relation rel, Oid own_trigger, const Oid *labels)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];
		char *constraint = NULL;

		if (!is_trigger_enabled(trigger) || is_own_trigger(trigger, own_trigger))
			continue;
		if (trigger->tgisinternal && OidIsValid(trigger->tgconstraint))
			constraint = get_constraint_name(trigger->tgconstraint);
		return constraint ? psprintf("the constraint \"%s\"", constraint) :
							psprintf("the trigger \"%s\"", trigger->tgname);
	}
	for (int i = 0; rel->rd_rules && i < rel->rd_rules->numLocks; i++)
	{
		if (rel->rd_rules->rules[i]->enabled != RULE_DISABLED)
			return "a rule";
	}
	if (rel->rd_rel->relrowsecurity)
		return "row-level security";
	for (int i = 0; constr && i < constr->num_check; i++)
	{
		if (qml_check_is_enforced(&constr->check[i]) &&
			!is_known_check(rel, &constr->check[i], labels))
			return psprintf("the check constraint \"%s\"", constr->check[i].ccname);
	}
	return NULL;
}

/*
 * Whether nothing was added that writing below the executor would pass over.  own_trigger: a
 * function that qml itself has called for statements; InvalidOid: none.  labels: those of the states
 * of jobs; NULL: it is no table of jobs.
 */
bool
qml_shape_is_plain(Relation rel, Oid own_trigger, const Oid *labels)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	/* That is so nearly always, and is seen at once. */
	if (rel->trigdesc == NULL && rel->rd_rules == NULL && !rel->rd_rel->relrowsecurity &&
		(constr == NULL || constr->num_check == 0))
		return true;
	return find_addition(rel, own_trigger, labels) == NULL;
}

/* Raises 55000 if something was added to a table that is going to be written. */
void
qml_shape_require_plain(Relation rel, Oid own_trigger, const Oid *labels)
{
	if (qml_shape_is_plain(rel, own_trigger, labels))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s.%s\" has %s, which qml would pass over", QML_SCHEMA,
					RelationGetRelationName(rel), find_addition(rel, own_trigger, labels)),
			 errdetail("Rows of jobs and schedules are written without SQL.  Triggers, foreign "
					   "keys, check constraints, rules and row-level security on these tables "
					   "have no effect."),
			 errhint("Drop it or disable it.  To act on changes of jobs, register a state hook with "
					 "qml_register_hook().")));
}
