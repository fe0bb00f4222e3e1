/*
 * columns.c
 *		Which columns of qml's tables the library knows, and what becomes of others.
 *
 * Library and SQL objects are upgraded one after the other, and either may be the newer
 * one for as long as people like.  What makes that work:
 *
 *	 - Update scripts only add columns, at the end.  So the columns of version 1.0 are always
 *	   there under the same numbers.  Later ones are not: `since` says which version brought
 *	   a column, and the SQL objects may be older; and an administrator may have added columns
 *	   of his own before, or added and dropped some, so that the number is another one, and
 *	   differs between a table and its partitions.  They are found by name, by
 *	   qml_columns_number().
 *	 - Columns that are not known are left as they are when a row is updated, follow it by name
 *	   when it moves between qml.live and qml.history, and get their default in a new row.
 *	   That must be a constant, for rows are written below the executor.
 *
 * All of this is checked when the tables are looked up (model/catalog.c), so that a library
 * which cannot serve the tables says so and touches none.  Partitions of the history are
 * checked when they are opened: somebody may have attached a table of his own.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "model/columns.h"
#include "qml.h"

/* In place of types that have no fixed oid: qml.job_state, and its array. */
#define STATE_TYPE	((Oid) 1)
#define STATES_TYPE ((Oid) 2)

typedef struct Column
{
	const char *name;
	Oid type;
	int since; /* minor version of the SQL objects that brought it; 0: it was always there */
} Column;

/* The columns that qml.live and the history begin with. */
#define JOB_COLUMNS                                                                       \
	{"id", UUIDOID, 0}, {"created_at", TIMESTAMPTZOID, 0}, {"queue_id", INT4OID, 0},      \
		{"priority", INT4OID, 0}, {"max_retries", INT2OID, 0}, {"lineage", INT2OID, 0},   \
		{"created_by", REGROLEOID, 0}, {"state", STATE_TYPE, 0}, {"attempt", INT4OID, 0}, \
	{                                                                                     \
		"ready_at", TIMESTAMPTZOID, 0                                                     \
	}

static const Column live[] = {
	JOB_COLUMNS,
	{"run_at", TIMESTAMPTZOID, 0},
	{"started_at", TIMESTAMPTZOID, 0},
	{"lease_expires_at", TIMESTAMPTZOID, 0},
	{"timeout_ms", INT4OID, 0},
	{"uncounted", INT4OID, 0},
	{"worker", TEXTOID, 0},
	{"server", TEXTOID, 0},
	{"method", TEXTOID, 0},
	{"job_type", TEXTOID, 0},
	{"metadata", JSONBOID, 0},
	{"progress", JSONBOID, 0},
	{"errors", JSONBOID, 0},
	{"reason", TEXTOID, 0},
	{"payload", JSONBOID, 0},
#ifdef QML_NEXT
	{"note", TEXTOID, 1},
#endif
};

static const Column history[] = {
	JOB_COLUMNS,
	{"finished_at", TIMESTAMPTZOID, 0},
	{"expires_at", TIMESTAMPTZOID, 0},
	{"started_at", TIMESTAMPTZOID, 0},
	{"timeout_ms", INT4OID, 0},
	{"uncounted", INT4OID, 0},
	{"worker", TEXTOID, 0},
	{"server", TEXTOID, 0},
	{"method", TEXTOID, 0},
	{"job_type", TEXTOID, 0},
	{"metadata", JSONBOID, 0},
	{"progress", JSONBOID, 0},
	{"errors", JSONBOID, 0},
	{"reason", TEXTOID, 0},
	{"payload", JSONBOID, 0},
	{"result", JSONBOID, 0},
#ifdef QML_NEXT
	{"note", TEXTOID, 1},
#endif
};

static const Column recurring[] = {
	{"id", TEXTOID, 0},
	{"created_at", TIMESTAMPTZOID, 0},
	{"updated_at", TIMESTAMPTZOID, 0},
	{"created_by", REGROLEOID, 0},
	{"enabled", BOOLOID, 0},
	{"next_run_at", TIMESTAMPTZOID, 0},
	{"last_run_at", TIMESTAMPTZOID, 0},
	{"fired_through", TIMESTAMPTZOID, 0},
	{"anchor", TIMESTAMPTZOID, 0},
	{"last_job", UUIDOID, 0},
	{"priority", INT4OID, 0},
	{"max_retries", INT4OID, 0},
	{"timeout_ms", INT4OID, 0},
	{"misfire", TEXTOID, 0},
	{"overlap", TEXTOID, 0},
	{"cron", TEXTOID, 0},
	{"timezone", TEXTOID, 0},
	{"queue", TEXTOID, 0},
	{"method", TEXTOID, 0},
	{"job_type", TEXTOID, 0},
	{"metadata", JSONBOID, 0},
	{"error", TEXTOID, 0},
	{"paused_at", TIMESTAMPTZOID, 0},
	{"paused_by", TEXTOID, 0},
	{"pause_reason", TEXTOID, 0},
	{"open_jobs", UUIDARRAYOID, 0},
	{"imported", JSONBOID, 0},
	{"payload", JSONBOID, 0},
};

static const Column occurrence[] = {
	{"occurrence", TIMESTAMPTZOID, 0}, {"recurring", TEXTOID, 0}, {"job", UUIDOID, 0},
	{"fired_at", TIMESTAMPTZOID, 0},   {"partition", INT2OID, 0}, {"outcome", TEXTOID, 0},
	{"through", TIMESTAMPTZOID, 0},
};

static const Column queue[] = {
	{"id", INT4OID, 0},
	{"name", TEXTOID, 0},
	{"paused", BOOLOID, 0},
	{"dropped", BOOLOID, 0},
	{"options", JSONBOID, 0},
	{"created_at", TIMESTAMPTZOID, 0},
	{"paused_at", TIMESTAMPTZOID, 0},
	{"paused_by", TEXTOID, 0},
	{"pause_reason", TEXTOID, 0},
};

static const Column handler[] = {
	{"method", TEXTOID, 0},
	{"schema", TEXTOID, 0},
	{"name", TEXTOID, 0},
	{"argument_types", TEXTARRAYOID, 0},
	{"owner", REGROLEOID, 0},
	{"run_as", REGROLEOID, 0},
	{"registered_by", REGROLEOID, 0},
	{"registered_at", TIMESTAMPTZOID, 0},
	{"options", JSONBOID, 0},
	{"command", TEXTOID, 0},
};

static const Column hook[] = {
	{"name", TEXTOID, 0},
	{"schema", TEXTOID, 0},
	{"function", TEXTOID, 0},
	{"argument_types", TEXTARRAYOID, 0},
	{"owner", REGROLEOID, 0},
	{"run_as", REGROLEOID, 0},
	{"registered_at", TIMESTAMPTZOID, 0},
	{"states", STATES_TYPE, 0},
	{"errors", INT4OID, 0},
	{"broken", BOOLOID, 0},
	{"last_error", TEXTOID, 0},
	{"last_error_at", TIMESTAMPTZOID, 0},
	{"options", JSONBOID, 0},
};

static const Column middleware[] = {
	{"name", TEXTOID, 0},
	{"schema", TEXTOID, 0},
	{"function", TEXTOID, 0},
	{"argument_types", TEXTARRAYOID, 0},
	{"owner", REGROLEOID, 0},
	{"run_as", REGROLEOID, 0},
	{"registered_at", TIMESTAMPTZOID, 0},
	{"position", INT4OID, 0},
};

static const Column acl[] = {
	{"grantee", REGROLEOID, 0}, {"capability", TEXTOID, 0},		   {"queue", TEXTOID, 0},
	{"grantor", REGROLEOID, 0}, {"granted_at", TIMESTAMPTZOID, 0},
};

static const Column lock[] = {
	{"resource", TEXTOID, 0},			{"owner", TEXTOID, 0},
	{"taken_by", REGROLEOID, 0},		{"fence", INT8OID, 0},
	{"acquired_at", TIMESTAMPTZOID, 0}, {"expires_at", TIMESTAMPTZOID, 0},
};

static const Column instance[] = {
	{"system_identifier", INT8OID, 0},
	{"database", OIDOID, 0},
	{"adopted_at", TIMESTAMPTZOID, 0},
};

static const Column server[] = {
	{"id", TEXTOID, 0},
	{"name", TEXTOID, 0},
	{"workers", INT4OID, 0},
	{"queues", TEXTARRAYOID, 0},
	{"registered_by", REGROLEOID, 0},
	{"registered_at", TIMESTAMPTZOID, 0},
	{"heartbeat_at", TIMESTAMPTZOID, 0},
	{"dead_at", TIMESTAMPTZOID, 0},
};

static const Column job[] = {
	{"id", UUIDOID, 0},
	{"queue", TEXTOID, 0},
	{"method", TEXTOID, 0},
	{"payload", JSONBOID, 0},
	{"state", STATE_TYPE, 0},
	{"priority", INT4OID, 0},
	{"attempt", INT4OID, 0},
	{"tries", INT4OID, 0},
	{"max_retries", INT4OID, 0},
	{"retries_left", INT4OID, 0},
	{"run_at", TIMESTAMPTZOID, 0},
	{"created_at", TIMESTAMPTZOID, 0},
	{"ready_at", TIMESTAMPTZOID, 0},
	{"started_at", TIMESTAMPTZOID, 0},
	{"finished_at", TIMESTAMPTZOID, 0},
	{"expires_at", TIMESTAMPTZOID, 0},
	{"lease_expires_at", TIMESTAMPTZOID, 0},
	{"worker", TEXTOID, 0},
	{"server", TEXTOID, 0},
	{"timeout", INTERVALOID, 0},
	{"result", JSONBOID, 0},
	{"progress", JSONBOID, 0},
	{"error", TEXTOID, 0},
	{"errors", JSONBOID, 0},
	{"metadata", JSONBOID, 0},
	{"job_type", TEXTOID, 0},
	{"reason", TEXTOID, 0},
	{"created_by", NAMEOID, 0},
#ifdef QML_NEXT
	{"note", TEXTOID, 1},
#endif
};

StaticAssertDecl(lengthof(live) == LIVE_NATTS, "columns.h numbers the columns of qml.live");
StaticAssertDecl(lengthof(history) == HISTORY_NATTS,
				 "columns.h numbers the columns of qml.history");
StaticAssertDecl(lengthof(recurring) == RECURRING_NATTS,
				 "columns.h numbers the columns of qml.recurring_data");
StaticAssertDecl(lengthof(occurrence) == OCCURRENCE_NATTS,
				 "columns.h numbers the columns of qml.occurrence_data");
StaticAssertDecl(lengthof(handler) == HANDLER_NATTS,
				 "columns.h numbers the columns of qml.handler_data");
StaticAssertDecl(lengthof(hook) == HOOK_NATTS, "columns.h numbers the columns of qml.hook_data");
StaticAssertDecl(lengthof(middleware) == MIDDLEWARE_NATTS,
				 "columns.h numbers the columns of qml.middleware_data");
StaticAssertDecl(lengthof(job) == JOB_NATTS, "columns.h numbers the columns of qml.job");

#define KNOWN(columns) columns, lengthof(columns)

/* How rows of a table are read and written. */
typedef enum Access
{
	BY_NAME = 0, /* by SQL alone */
	BY_NUMBER,	 /* read below the executor, written by SQL */
	DIRECT		 /* read and written below the executor */
} Access;

static const struct
{
	const Column *columns;
	int count;
	Access access;
} tables[] = {
	[QML_TABLE_LIVE] = {KNOWN(live), DIRECT},
	[QML_TABLE_HISTORY] = {KNOWN(history), DIRECT},
	[QML_TABLE_RECURRING] = {KNOWN(recurring), DIRECT},
	[QML_TABLE_OCCURRENCE] = {KNOWN(occurrence), DIRECT},
	[QML_TABLE_QUEUE] = {KNOWN(queue), BY_NUMBER},
	[QML_TABLE_HANDLER] = {KNOWN(handler), BY_NUMBER},
	[QML_TABLE_HOOK] = {KNOWN(hook), BY_NUMBER},
	[QML_TABLE_MIDDLEWARE] = {KNOWN(middleware), BY_NUMBER},
	[QML_TABLE_ACL] = {KNOWN(acl), BY_NUMBER},
	[QML_TABLE_INSTANCE] = {KNOWN(instance), BY_NUMBER},
	[QML_TABLE_LOCK] = {KNOWN(lock), BY_NAME},
	[QML_TABLE_SERVER] = {KNOWN(server), BY_NAME},
	[QML_VIEW_JOB] = {KNOWN(job), BY_NUMBER},
};

/* Of the SQL objects that are checked. */
static int sql_minor;
static Oid state_type; /* qml.job_state */

/* ----- checking ----- */

/* Before the tables are checked: the minor version of the SQL objects, and the type of states. */
void
qml_columns_begin(int minor, Oid state)
{
	sql_minor = minor;
	state_type = state;
}

/*
 * What to do when something is not there that the library needs.  With SQL objects that are
 * newer than the library, a server that was not started again goes on with the old one.
 */
const char *
qml_columns_hint(void)
{
	return sql_minor > QML_VERSION_MINOR ?
			   "Restart the server to load the new library, or reconnect if qml is not preloaded." :
			   "Drop and create the extension, or restore it from a backup.";
}

static Oid
type_of(const Column *column)
{
	if (column->type == STATE_TYPE)
		return state_type;
	if (column->type == STATES_TYPE)
		return get_array_type(state_type);
	return column->type;
}

/* Whether a column of the table is a known one. */
static bool
is_column(TupleDesc desc, int i, const Column *column)
{
	Form_pg_attribute att = TupleDescAttr(desc, i);

	return !att->attisdropped && att->atttypid == type_of(column) &&
		   strcmp(NameStr(att->attname), column->name) == 0;
}

/* Whether known column number i is under this number in all tables. */
static bool
is_numbered(QmlKnownTable table, int i)
{
	return tables[table].access != BY_NAME && tables[table].columns[i].since == 0;
}

/*
 * Where the table has known column number i; -1: it lacks it.  What has the name of a column
 * that the SQL objects do not have yet is somebody's own.
 */
static int
find_column(QmlKnownTable table, TupleDesc desc, int i)
{
	const Column *column = &tables[table].columns[i];

	if (column->since > sql_minor)
		return -1;
	if (is_numbered(table, i))
		return i < desc->natts && is_column(desc, i, column) ? i : -1;
	for (int n = 0; n < desc->natts; n++)
	{
		/* First under the same number: mostly nobody has added any. */
		int place = (i + n) % desc->natts;

		if (is_column(desc, place, column))
			return place;
	}
	return -1;
}

/* The first known column that the table lacks; -1: none. */
static int
find_missing(QmlKnownTable table, TupleDesc desc)
{
	for (int i = 0; i < tables[table].count; i++)
	{
		if (tables[table].columns[i].since <= sql_minor && find_column(table, desc, i) < 0)
			return i;
	}
	return -1;
}

/* Whether column i of a table is a known one; those that have fixed numbers have been checked. */
static bool
is_known(QmlKnownTable table, TupleDesc desc, int i)
{
	for (int known = 0; known < tables[table].count; known++)
	{
		if (is_numbered(table, known) ? i == known : find_column(table, desc, known) == i)
			return true;
	}
	return false;
}

static void
raise_missing(QmlKnownTable table, Relation rel, int missing)
{
	const Column *column = &tables[table].columns[missing];

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s.%s\" does not have the columns that the library expects",
					QML_SCHEMA, RelationGetRelationName(rel)),
			 is_numbered(table, missing) ?
				 errdetail("Column %d must be \"%s\" of type %s.", missing + 1, column->name,
						   format_type_be(type_of(column))) :
				 errdetail("Column \"%s\" must be of type %s.", column->name,
						   format_type_be(type_of(column))),
			 errhint("%s", qml_columns_hint())));
}

/*
 * The default of a column as a constant; NULL: it has none.  *constant is false if it has
 * to be computed for each row.
 */
static Const *
find_default(TupleDesc desc, int i, bool *constant)
{
	TupleConstr *constr = desc->constr;

	*constant = true;
	for (int d = 0; constr && d < constr->num_defval; d++)
	{
		Expr *expr;

		if (constr->defval[d].adnum != i + 1)
			continue;
		expr = expression_planner(stringToNode(constr->defval[d].adbin));
		*constant = IsA(expr, Const);
		return *constant ? (Const *) expr : NULL;
	}
	return NULL;
}

/* Whether rows can be written without knowing what the column means. */
static bool
can_fill(TupleDesc desc, int i)
{
	Form_pg_attribute att = TupleDescAttr(desc, i);
	bool constant;
	Const *value;

	if (att->attisdropped)
		return true;
	if (att->attgenerated != '\0' || att->attidentity != '\0' ||
		get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
		return false;
	value = find_default(desc, i, &constant);
	return constant && (!att->attnotnull || (value && !value->constisnull));
}

static void
check_others(QmlKnownTable table, Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		if (!is_known(table, desc, i) && !can_fill(desc, i))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s.%s\" is not known to the library",
							NameStr(TupleDescAttr(desc, i)->attname), QML_SCHEMA,
							RelationGetRelationName(rel)),
					 errdetail("A column that it does not know must accept NULL or have a "
							   "constant default."),
					 errhint("%s", sql_minor > QML_VERSION_MINOR ?
									   qml_columns_hint() :
									   "Drop the column, or give it a constant default.")));
	}
}

/* Raises 55000 if the library cannot work with the table; see the head of this file. */
void
qml_columns_check(QmlKnownTable table, Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);

	qml_columns_check_open(table, rel);
	table_close(rel, AccessShareLock);
}

/* The same for a table that is open. */
void
qml_columns_check_open(QmlKnownTable table, Relation rel)
{
	int missing = find_missing(table, RelationGetDescr(rel));

	if (missing >= 0)
		raise_missing(table, rel, missing);
	if (tables[table].access == DIRECT)
		check_others(table, rel);
}

/* The same for a partition of the history that has been opened. */
void
qml_columns_check_leaf(Relation leaf)
{
	int missing = find_missing(QML_TABLE_HISTORY, RelationGetDescr(leaf));

	if (missing >= 0)
		raise_missing(QML_TABLE_HISTORY, leaf, missing);
}

/*
 * The number in a table of a known column that came after version 1.0; 0: the table does not
 * have it.  known: its number where nobody has added columns.
 */
int
qml_columns_number(QmlKnownTable table, TupleDesc desc, int known)
{
	Assert(known >= 1 && known <= tables[table].count && !is_numbered(table, known - 1));
	return find_column(table, desc, known - 1) + 1;
}

/* ----- columns that are not known ----- */

/* The value of a column of the same name and type in another row. */
static bool
find_in_source(TupleTableSlot *source, int i, Form_pg_attribute att, Datum *value, bool *isnull)
{
	TupleDesc desc = source->tts_tupleDescriptor;

	for (int n = 0; n < desc->natts; n++)
	{
		/* First under the same number: the table is mostly the same. */
		int s = (i + n) % desc->natts;
		Form_pg_attribute other = TupleDescAttr(desc, s);

		if (other->attisdropped || other->atttypid != att->atttypid ||
			strcmp(NameStr(other->attname), NameStr(att->attname)) != 0)
			continue;
		*value = slot_getattr(source, s + 1, isnull);
		return true;
	}
	return false;
}

/* Column i of a row that is being made; source: see qml_columns_fill_unknown(). */
static void
fill_column(TupleTableSlot *row, int i, TupleTableSlot *source)
{
	TupleDesc desc = row->tts_tupleDescriptor;
	Form_pg_attribute att = TupleDescAttr(desc, i);
	Const *value;
	bool constant;

	row->tts_values[i] = (Datum) 0;
	row->tts_isnull[i] = true;
	if (att->attisdropped ||
		(source && find_in_source(source, i, att, &row->tts_values[i], &row->tts_isnull[i])))
		return;
	value = find_default(desc, i, &constant);
	if (value)
	{
		row->tts_values[i] = value->constvalue;
		row->tts_isnull[i] = value->constisnull;
	}
	/* qml.history has been checked, its partitions have not. */
	if (!constant || (att->attnotnull && row->tts_isnull[i]))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of a table of extension \"qml\" is not known to the "
						"library",
						NameStr(att->attname)),
				 errdetail("A column that it does not know must accept NULL or have a "
						   "constant default.")));
}

/* qml_columns_fill_unknown() for a table that has columns which came later. */
void
qml_columns_fill_others(QmlKnownTable table, TupleTableSlot *row, int numbered,
						TupleTableSlot *source)
{
	TupleDesc desc = row->tts_tupleDescriptor;

	Assert(numbered == tables[table].count || !is_numbered(table, numbered));
	for (int i = numbered; i < desc->natts; i++)
	{
		if (!is_known(table, desc, i))
			fill_column(row, i, source);
	}
}

/* Makes a row of the values of another one, of this table or of one with the same columns. */
void
qml_columns_copy(TupleTableSlot *row, int numbered, TupleTableSlot *source)
{
	slot_getsomeattrs(source, numbered);
	memcpy(row->tts_values, source->tts_values, sizeof(Datum) * numbered);
	memcpy(row->tts_isnull, source->tts_isnull, sizeof(bool) * numbered);
	for (int i = numbered; i < row->tts_tupleDescriptor->natts; i++)
		fill_column(row, i, source);
}
