/*
 * search_index.c
 *		Indexes by which jobs are sought: what is in them.
 *
 * The tables of jobs have indexes on functions of columns: the key of a job, which is its queue and a
 * hash of its method, and its order (core/search_order.h).  They are found by what they are made of,
 * whatever their names are: partitions bring their own, and an administrator can add or drop some.
 * doc/internals/storage.md says what each is for, and what it costs.
 *
 * Their entries are made here (QmlTableIndexes), by the same functions that SQL calls when it
 * writes or indexes the tables.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "common/hashfn.h"
#include "nodes/primnodes.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "common/cache.h"
#include "common/table.h"
#include "core/search_order.h"
#include "model/catalog.h"
#include "model/columns.h"
#include "model/search_index.h"
#include "model/shape.h"

/* What one of the keys of an index is. */
typedef enum Part
{
	END = 0,
	ORDER,
	KEY,
	STATE,
	QUEUE,
	FINISHED_AT
} Part;

/* Which rows have an entry. */
typedef enum Condition
{
	ALL = 0,
	NOT_SUCCEEDED,
	OWN_ID,
	SLOW,
	NOT_READY
} Condition;

static const struct
{
	bool live; /* of unfinished jobs */
	Part parts[QML_TABLE_MAX_KEYS + 1];
	Condition condition;
} indexes[QML_SEARCH_INDEXES] = {
	[QML_SEARCH_BY_KEY] = {false, {KEY, ORDER}, ALL},
	[QML_SEARCH_BY_STATE] = {false, {STATE, ORDER, KEY}, NOT_SUCCEEDED},
	[QML_SEARCH_BY_OWN] = {false, {ORDER}, OWN_ID},
	[QML_SEARCH_BY_END] = {false, {FINISHED_AT}, SLOW},
	[QML_SEARCH_LIVE_BY_OWN] = {true, {ORDER, QUEUE}, OWN_ID},
	[QML_SEARCH_LIVE_LATER] = {true, {QUEUE, ORDER}, NOT_READY},
	[QML_SEARCH_LIVE_BY_KEY] = {true, {KEY, ORDER}, ALL},
};

/* What is known of an index. */
typedef struct Known
{
	Oid oid;
	QmlSearchIndex kind;
} Known;

static HTAB *known_indexes = NULL;

/* A relation changed; InvalidOid stands for all of them. */
static void
forget_index(Oid relid)
{
	HASH_SEQ_STATUS status;
	Known *known;

	if (known_indexes == NULL)
		return;
	if (OidIsValid(relid))
	{
		(void) hash_search(known_indexes, &relid, HASH_REMOVE, NULL);
		return;
	}
	hash_seq_init(&status, known_indexes);
	while ((known = hash_seq_search(&status)) != NULL)
		(void) hash_search(known_indexes, &known->oid, HASH_REMOVE, NULL);
}

/* ----- keys ----- */

/* The method as it is in a key. */
uint32
qml_search_index_method(Datum method)
{
	text *name = DatumGetTextPP(method);
	uint32 hash = hash_bytes((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

	if ((Pointer) name != DatumGetPointer(method))
		pfree(name);
	return hash;
}

/* Jobs of a queue are beside each other, and in it those of a method. */
int64
qml_search_index_key(int queue_id, Datum method)
{
	return (int64) queue_id * (INT64CONST(1) << 32) + qml_search_index_method(method);
}

int64
qml_search_index_first_key(int queue_id)
{
	return (int64) queue_id * (INT64CONST(1) << 32);
}

int64
qml_search_index_last_key(int queue_id)
{
	return qml_search_index_first_key(queue_id) + PG_UINT32_MAX;
}

/* ----- recognizing an index ----- */

static bool
is_column(const Node *node, int attnum)
{
	return IsA(node, Var) && ((const Var *) node)->varattno == attnum;
}

/* Whether it is a call of a function with two columns. */
static bool
is_call(const Node *node, Oid function, int first, int second)
{
	const FuncExpr *call = (const FuncExpr *) node;

	return OidIsValid(function) && IsA(node, FuncExpr) && call->funcid == function &&
		   list_length(call->args) == 2 && is_column(linitial(call->args), first) &&
		   is_column(lsecond(call->args), second);
}

/* Whether a key of an index, a column or the next of its expressions, is this part. */
static bool
is_part(Part part, int attnum, const Node *expression, bool live)
{
	const QmlCatalog *cat = qml_catalog();
	int method = live ? LIVE_METHOD : HISTORY_METHOD;

	switch (part)
	{
		case ORDER:
			return expression && is_call(expression, cat->search_order, LIVE_ID, LIVE_CREATED_AT);
		case KEY:
			return expression && is_call(expression, cat->search_key, LIVE_QUEUE_ID, method);
		case STATE:
			return attnum == LIVE_STATE;
		case QUEUE:
			return attnum == LIVE_QUEUE_ID;
		case FINISHED_AT:
			return attnum == HISTORY_FINISHED_AT;
		case END:
			break;
	}
	return false;
}

static bool
has_parts(Relation index, const Part *parts, bool live)
{
	List *expressions = RelationGetIndexExpressions(index);
	ListCell *next = list_head(expressions);
	int nkeys = 0;

	for (; parts[nkeys] != END; nkeys++)
	{
		int attnum;

		if (nkeys >= index->rd_index->indnkeyatts || index->rd_indoption[nkeys] != 0)
			return false;
		attnum = index->rd_index->indkey.values[nkeys];
		if (attnum == 0 && next == NULL)
			return false;
		if (!is_part(parts[nkeys], attnum, attnum == 0 ? lfirst(next) : NULL, live))
			return false;
		if (attnum == 0)
			next = lnext(expressions, next);
	}
	return nkeys == index->rd_index->indnatts;
}

/* Whether a condition is that a state is not succeeded. */
static bool
is_not_succeeded(const Node *node)
{
	const OpExpr *operation = (const OpExpr *) node;
	const Const *state;

	if (!IsA(node, OpExpr) || operation->opfuncid != F_ENUM_NE ||
		!is_column(linitial(operation->args), LIVE_STATE) || !IsA(lsecond(operation->args), Const))
		return false;
	state = lsecond(operation->args);
	return !state->constisnull &&
		   DatumGetObjectId(state->constvalue) == qml_catalog()->states[QML_SUCCEEDED];
}

static bool
has_condition(Relation index, Condition condition)
{
	const QmlCatalog *cat = qml_catalog();
	List *conditions = RelationGetIndexPredicate(index);
	const Node *node;

	if (condition == ALL || conditions == NIL)
		return condition == ALL && conditions == NIL;
	if (list_length(conditions) != 1)
		return false;
	node = linitial(conditions);
	switch (condition)
	{
		case NOT_SUCCEEDED:
			return is_not_succeeded(node);
		case OWN_ID:
			return is_call(node, cat->search_own, LIVE_ID, LIVE_CREATED_AT);
		case SLOW:
			return is_call(node, cat->search_slow, LIVE_CREATED_AT, HISTORY_FINISHED_AT);
		case NOT_READY:
			return IsA(node, NullTest) && ((const NullTest *) node)->nulltesttype == IS_NOT_NULL &&
				   is_column((const Node *) ((const NullTest *) node)->arg, LIVE_RUN_AT);
		case ALL:
			break;
	}
	return false;
}

static QmlSearchIndex
recognize(Relation index, bool live)
{
	const Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID || form->indisunique || form->indisexclusion ||
		!form->indisready || !form->indislive || form->indnkeyatts != form->indnatts)
		return QML_SEARCH_BY_NONE;
	for (int i = QML_SEARCH_BY_NONE + 1; i < QML_SEARCH_INDEXES; i++)
	{
		if (indexes[i].live == live && has_parts(index, indexes[i].parts, live) &&
			has_condition(index, indexes[i].condition))
			return i;
	}
	return QML_SEARCH_BY_NONE;
}

/* Whether a table has jobs; *live: unfinished ones. */
static bool
has_jobs(Relation table, bool *live)
{
	Oid relid = RelationGetRelid(table);

	*live = false;
	for (int i = 0; i < QML_STORES; i++)
	{
		const QmlStore *store = qml_store(i);

		*live = relid == store->live;
		if (*live || relid == store->overflow)
			return true;
		if (table->rd_rel->relispartition && get_partition_parent(relid, true) == store->history)
			return true;
	}
	return false;
}

static QmlSearchIndex
look_at(Relation table, Oid oid)
{
	QmlSearchIndex kind = QML_SEARCH_BY_NONE;
	Relation index;
	bool live;

	if (!has_jobs(table, &live))
		return QML_SEARCH_BY_NONE;
	/* As the caller would lock it; released as that would be. */
	index = index_open(oid, RecoveryInProgress() ? AccessShareLock : RowExclusiveLock);
	kind = recognize(index, live);
	index_close(index, RecoveryInProgress() ? AccessShareLock : RowExclusiveLock);
	return kind;
}

/* QmlTableIndexes.kind. */
static int
index_kind(Relation table, Oid oid)
{
	Known *known;
	QmlSearchIndex kind;

	if (known_indexes == NULL)
	{
		HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(Known)};

		known_indexes = hash_create("qml search indexes", 64, &control, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(known_indexes, &oid, HASH_FIND, NULL);
	if (known)
		return known->kind;
	kind = look_at(table, oid);
	/* The table is locked: no other change of the index can have come meanwhile. */
	known = hash_search(known_indexes, &oid, HASH_ENTER, NULL);
	known->kind = kind;
	return kind;
}

/* ----- entries ----- */

static Datum
get(TupleTableSlot *row, int attnum)
{
	bool isnull;
	Datum value = slot_getattr(row, attnum, &isnull);

	return isnull ? (Datum) 0 : value;
}

static bool
has_own_id(TupleTableSlot *row)
{
	return !qml_order_is_by_id(DatumGetUUIDP(get(row, LIVE_ID))->data,
							   DatumGetTimestampTz(get(row, LIVE_CREATED_AT)));
}

static bool
meets(Condition condition, TupleTableSlot *row)
{
	switch (condition)
	{
		case ALL:
			break;
		case NOT_SUCCEEDED:
			return DatumGetObjectId(get(row, LIVE_STATE)) != qml_catalog()->states[QML_SUCCEEDED];
		case OWN_ID:
			return has_own_id(row);
		case SLOW:
			return qml_order_is_slow(DatumGetTimestampTz(get(row, LIVE_CREATED_AT)),
									 DatumGetTimestampTz(get(row, HISTORY_FINISHED_AT)));
		case NOT_READY:
			return !slot_attisnull(row, LIVE_RUN_AT);
	}
	return true;
}

static Datum
make_part(Part part, TupleTableSlot *row, bool live)
{
	switch (part)
	{
		case ORDER:
			return Int64GetDatum(qml_order_of(DatumGetUUIDP(get(row, LIVE_ID))->data,
											  DatumGetTimestampTz(get(row, LIVE_CREATED_AT))));
		case KEY:
			return Int64GetDatum(
				qml_search_index_key(DatumGetInt32(get(row, LIVE_QUEUE_ID)),
									 get(row, live ? LIVE_METHOD : HISTORY_METHOD)));
		case STATE:
			return get(row, LIVE_STATE);
		case QUEUE:
			return get(row, LIVE_QUEUE_ID);
		case FINISHED_AT:
			return get(row, HISTORY_FINISHED_AT);
		case END:
			break;
	}
	return (Datum) 0;
}

/* QmlTableIndexes.entry. */
static int
make_entry(int kind, TupleTableSlot *row, Datum *values)
{
	int count = 0;

	if (!meets(indexes[kind].condition, row))
		return 0;
	for (; indexes[kind].parts[count] != END; count++)
		values[count] = make_part(indexes[kind].parts[count], row, indexes[kind].live);
	return count;
}

static const QmlTableIndexes table_indexes = {
	.kind = index_kind,
	.entry = make_entry,
};

/* Called when the library is loaded. */
void
qml_search_index_init(void)
{
	qml_cache_listen(forget_index);
	qml_table_set_indexes(&table_indexes);
}

/* ----- reading ----- */

/*
 * Whether an index has all that the caller's snapshots can see.  One that was made later may lack
 * older versions of rows.
 */
static bool
is_usable(Relation index)
{
	return index->rd_index->indisvalid &&
		   (!index->rd_index->indcheckxmin ||
			TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data),
								  TransactionXmin));
}

/* QmlIndexFits: it is of this kind. */
static bool
is_of_kind(Relation table, Relation index, const void *arg)
{
	return index_kind(table, RelationGetRelid(index)) == (int) *(const QmlSearchIndex *) arg &&
		   is_usable(index);
}

/* Opens the index of a table that is of this kind; NULL: it has none. */
Relation
qml_search_index_open(Relation table, QmlSearchIndex kind)
{
	bool locked;

	return qml_shape_find_index(table, is_of_kind, &kind, true, &locked);
}
