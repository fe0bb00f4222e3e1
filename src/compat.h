/*
 * compat.h
 *		Differences between PostgreSQL 15 and 18, and in no other file: the code
 *		reads as for the newest server.
 */
#ifndef QML_COMPAT_H
#define QML_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/regproc.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "qml needs PostgreSQL 15 or later"
#endif

/* Rows are written below the executor, by functions whose meaning changes between majors. */
#if PG_VERSION_NUM >= 190000
#error "qml was not tried on this version of PostgreSQL: 18 is the newest one that it knows"
#endif

#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "varatt.h"
#endif

/* Before 16 PGDLLEXPORT is empty, and the library is built with hidden symbols. */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* A function that SQL calls: exported on every version. */
#define QML_FUNCTION(name)                           \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

#if PG_VERSION_NUM < 180000
#define qml_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#else
#define qml_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#endif

/* The number of the file that has the rows of a table, and whether it is of this transaction. */
#if PG_VERSION_NUM < 160000
#define qml_relation_file(rel)		   ((rel)->rd_node.relNode)
#define qml_relation_is_rewritten(rel) ((rel)->rd_firstRelfilenodeSubid != InvalidSubTransactionId)
#else
#define qml_relation_file(rel) ((rel)->rd_locator.relNumber)
#define qml_relation_is_rewritten(rel) \
	((rel)->rd_firstRelfilelocatorSubid != InvalidSubTransactionId)
#endif

/*
 * What table_tuple_update() says of the indexes.  From 16 on there is a third answer: the new
 * row is in the HOT chain of the old one, and only summarizing indexes (BRIN) must have it.
 */
#if PG_VERSION_NUM < 160000
typedef bool QmlUpdateIndexes;
#define QML_UPDATE_NO_INDEXES  false
#define QML_UPDATE_ALL_INDEXES true
#define qml_exec_insert_index_tuples(rri, slot, estate, update, indexes) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL)
#define qml_exec_try_insert_index_tuples(rri, slot, estate, conflicts, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, conflicts, arbiters)
#else
typedef TU_UpdateIndexes QmlUpdateIndexes;
#define QML_UPDATE_NO_INDEXES  TU_None
#define QML_UPDATE_ALL_INDEXES TU_All
#define qml_exec_insert_index_tuples(rri, slot, estate, update, indexes) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL, (indexes) == TU_Summarizing)
#define qml_exec_try_insert_index_tuples(rri, slot, estate, conflicts, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, conflicts, arbiters, false)
#endif

/* Whether a new row, which has no place yet, meets none with its key. */
static inline bool
qml_exec_key_is_free(ResultRelInfo *rri, TupleTableSlot *slot, EState *estate, List *arbiters)
{
	ItemPointerData conflict;
#if PG_VERSION_NUM < 180000
	return ExecCheckIndexConstraints(rri, slot, estate, &conflict, arbiters);
#else
	ItemPointerData none;

	ItemPointerSetInvalid(&none);
	return ExecCheckIndexConstraints(rri, slot, estate, &conflict, &none, arbiters);
#endif
}

/*
 * Whether no row has a NULL in a column.  From 18 on the constraint may be there without
 * having been checked, and one of a check may not be enforced.
 */
#if PG_VERSION_NUM < 180000
#define qml_column_is_not_null(desc, i) (TupleDescAttr(desc, i)->attnotnull)
#define qml_check_is_enforced(check)	true
#else
#define qml_column_is_not_null(desc, i)    \
	(TupleDescAttr(desc, i)->attnotnull && \
	 TupleDescCompactAttr(desc, i)->attnullability != ATTNULLABLE_INVALID)
#define qml_check_is_enforced(check) ((check)->ccenforced)
#endif

#if PG_VERSION_NUM < 160000
#define qml_schema_is_usable(schema, role) \
	(pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK)
#else
#define qml_schema_is_usable(schema, role) \
	(object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK)
#endif

/* Runs a portal to its end, as the only statement of its transaction. */
#if PG_VERSION_NUM < 180000
#define qml_portal_run_all(portal, receiver, completion) \
	PortalRun(portal, FETCH_ALL, true, true, receiver, receiver, completion)
#else
#define qml_portal_run_all(portal, receiver, completion) \
	PortalRun(portal, FETCH_ALL, true, receiver, receiver, completion)
#endif

/* Those of this session. */
#if PG_VERSION_NUM < 170000
#define qml_replication_slots_drop_temporary() ReplicationSlotCleanup()
#else
#define qml_replication_slots_drop_temporary() ReplicationSlotCleanup(false)
#endif

/* A database whose DROP was cut off: minor releases of 2023 brought the mark. */
#define qml_database_is_invalid(entry) ((entry)->datconnlimit == -2)

#if PG_VERSION_NUM < 160000
#define qml_function_allows(function, role) \
	(pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK)
#define qml_database_allows(role) \
	(pg_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK)
#define qml_may_become(member, role) is_member_of_role(member, role)
#else
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#define qml_function_allows(function, role) \
	(object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK)
#define qml_database_allows(role) \
	(object_aclcheck(DatabaseRelationId, MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK)
#define qml_may_become(member, role) member_can_set_role(member, role)
#endif

/* The functions of a name, which may be qualified, in the search path; NULL: none. */
static inline FuncCandidateList
qml_function_candidates(const char *name)
{
#if PG_VERSION_NUM < 160000
	List *names = stringToQualifiedNameList(name);
#else
	List *names = stringToQualifiedNameList(name, NULL);
#endif

	return FuncnameGetCandidates(names, -1, NIL, false, false, false, true);
}

/* The type of a name that is qualified or built in; InvalidOid: there is none. */
static inline Oid
qml_type_by_name(const char *name)
{
	Oid type = InvalidOid;
	int32 typmod;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
#if PG_VERSION_NUM < 160000
		parseTypeString(name, &type, &typmod, true);
#else
		ErrorSaveContext errors = {.type = T_ErrorSaveContext};

		if (!parseTypeString(name, &type, &typmod, (Node *) &errors))
			type = InvalidOid;
#endif
	}
	PG_CATCH();
	{
		/*
		 * Only what is said of the name, by the grammar, which raises in every version;
		 * nothing else is caught here.
		 */
		if (geterrcode() != ERRCODE_SYNTAX_ERROR)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		type = InvalidOid;
	}
	PG_END_TRY();
	return type;
}

/*
 * Calls a type's input function; false if the text is no value of the type.  All other
 * errors, such as a lack of memory, are raised.
 */
static inline bool
qml_input_text(PGFunction input, char *string, Datum *value)
{
#if PG_VERSION_NUM < 160000
	MemoryContext context = CurrentMemoryContext;
	volatile bool valid = true;

	PG_TRY();
	{
		*value = DirectFunctionCall3(input, CStringGetDatum(string), ObjectIdGetDatum(InvalidOid),
									 Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		valid = false;
	}
	PG_END_TRY();
	return valid;
#else
	ErrorSaveContext errors = {.type = T_ErrorSaveContext};

	return DirectInputFunctionCallSafe(input, string, InvalidOid, -1, (Node *) &errors, value);
#endif
}

/* What the server shows of a session, by a number from 1 to pgstat_fetch_stat_numbackends(). */
#if PG_VERSION_NUM < 160000
#define qml_backend_entry(number) pgstat_fetch_stat_local_beentry(number)
#else
#define qml_backend_entry(number) pgstat_get_local_beentry_by_index(number)
#endif

/* Named wait events; before 17 all extensions share one.  For common/wait_event.c only. */
#if PG_VERSION_NUM < 170000
#define qml_wait_event_new(name) PG_WAIT_EXTENSION
#else
#define qml_wait_event_new(name) WaitEventExtensionNew(name)
#endif

/* Rows that were inserted, updated or deleted in a database, by its statistics. */
#if PG_VERSION_NUM < 160000
#define qml_database_written(stats) \
	((uint64) ((stats)->n_tuples_inserted + (stats)->n_tuples_updated + (stats)->n_tuples_deleted))
#else
#define qml_database_written(stats) \
	((uint64) ((stats)->tuples_inserted + (stats)->tuples_updated + (stats)->tuples_deleted))
#endif

/* Settings that came later, and that a process of qml must not get from others. */
#if PG_VERSION_NUM < 170000
#define QML_PINNED_LATER
#else
#define QML_PINNED_LATER {"transaction_timeout", "0"},
#endif

#endif
