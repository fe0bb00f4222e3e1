/*
 * compat.h
 *		Differences between PostgreSQL 15 and 18, and in no other file: the code
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
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "qml needs PostgreSQL 15 or later"
#endif

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

#endif
