/*
 * compat.h
 *		Differences between PostgreSQL 14 and 18, and in no other file: the code
 *		reads as for the newest server.
 */
#ifndef QML_COMPAT_H
#define QML_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "utils/acl.h"
#include "utils/guc.h"

#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
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

#if PG_VERSION_NUM < 160000
typedef bool QmlUpdateIndexes;
#define QML_UPDATE_NO_INDEXES false
#define qml_exec_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#else
typedef TU_UpdateIndexes QmlUpdateIndexes;
#define QML_UPDATE_NO_INDEXES TU_None
#define qml_exec_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#endif

#if PG_VERSION_NUM < 160000
#define qml_schema_is_usable(schema, role) \
	(pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK)
#else
#define qml_schema_is_usable(schema, role) \
	(object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK)
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

/* The type of a name that is qualified or built in; InvalidOid: there is none. */
static inline Oid
qml_type_by_name(const char *name)
{
	Oid type = InvalidOid;
	int32 typmod;
#if PG_VERSION_NUM < 160000
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		parseTypeString(name, &type, &typmod, true);
	}
	PG_CATCH();
	{
		/* Only what is said of the name, by the parser; nothing else is caught here. */
		if (geterrcode() != ERRCODE_SYNTAX_ERROR)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		type = InvalidOid;
	}
	PG_END_TRY();
#else
	ErrorSaveContext errors = {.type = T_ErrorSaveContext};

	if (!parseTypeString(name, &type, &typmod, (Node *) &errors))
		return InvalidOid;
#endif
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

/* Named wait events; before 17 all extensions share one. */
#if PG_VERSION_NUM < 170000
#define qml_wait_event(name) PG_WAIT_EXTENSION
#else
#define qml_wait_event(name) WaitEventExtensionNew(name)
#endif

/* Settings that came later, and that a process of qml must not get from others. */
#if PG_VERSION_NUM < 170000
#define QML_PINNED_LATER
#else
#define QML_PINNED_LATER {"transaction_timeout", "0"},
#endif

/* Processes that may hold jobs; before 15 not known while libraries are preloaded. */
#if PG_VERSION_NUM < 150000
#include "postmaster/autovacuum.h"
#include "replication/walsender.h"
#define qml_max_backends() \
	(MaxConnections + autovacuum_max_workers + 1 + max_worker_processes + max_wal_senders)
#else
#define qml_max_backends() MaxBackends
#endif

/* Has request called when shared memory may be asked for. */
#if PG_VERSION_NUM < 150000
typedef void (*QmlRequestHook)(void);
#define qml_set_request_hook(previous, request) ((previous) = NULL, (request) ())
#else
#include "miscadmin.h"
typedef shmem_request_hook_type QmlRequestHook;
#define qml_set_request_hook(previous, request) \
	((previous) = shmem_request_hook, shmem_request_hook = (request))
#endif

#if PG_VERSION_NUM < 150000
#include "funcapi.h"
#include "miscadmin.h"

/* A set-returning function that fills a tuplestore. */
static inline void
InitMaterializedSRF(FunctionCallInfo fcinfo, bits32 flags)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext oldcontext;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	oldcontext = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &rsinfo->setDesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(oldcontext);
}

#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#define qml_random()				  ((double) random() / ((double) MAX_RANDOM_VALUE + 1))
#else
#include "common/pg_prng.h"
#define qml_random() pg_prng_double(&pg_global_prng_state)
#endif

#endif
