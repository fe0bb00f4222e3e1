/*
 * function_ref.c
 *		Functions of users, kept by name.
 *
 * A function is stored by its schema, its name and the names of its argument types: an
 * oid survives neither a dump nor a DROP and CREATE of the function.
 *
 * The function that has the name now can be another one, with another owner, and the owner
 * of a function decides what it does.  So the owner is stored, too.  A function may be
 * called only if it belongs to its old owner, or to a role that has the rights of the role
 * that the function runs as and so gains nothing.  What runs as a superuser must belong to
 * a superuser.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "common/function_ref.h"
#include "compat.h"

/* Longest name of a function with its argument types, in bytes. */
#define MAX_NAME 4096

/* Most functions that an error names. */
#define MAX_NAMED 8

/* An array of text as a list of strings; a null, which names no type, as "". */
static List *
read_types(Datum value)
{
	List *types = NIL;
	Datum *elements;
	bool *nulls;
	int count;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &count);
	for (int i = 0; i < count; i++)
		types = lappend(types, nulls[i] ? "" : TextDatumGetCString(elements[i]));
	return types;
}

/* Reads the four columns of a row that begin at `first`, into the current memory context. */
void
qml_function_ref_read(HeapTuple tuple, TupleDesc desc, int first, QmlFunctionName *name)
{
	bool isnull;

	name->schema = TextDatumGetCString(heap_getattr(tuple, first, desc, &isnull));
	name->name = TextDatumGetCString(heap_getattr(tuple, first + 1, desc, &isnull));
	name->types = read_types(heap_getattr(tuple, first + 2, desc, &isnull));
	name->owner = DatumGetObjectId(heap_getattr(tuple, first + 3, desc, &isnull));
}

/* The role that owns a function that exists. */
Oid
qml_function_ref_owner(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The values of these columns for a function that exists. */
void
qml_function_ref_values(Oid function, Datum *values)
{
	Oid *types;
	int ntypes;
	Datum *names;

	(void) get_func_signature(function, &types, &ntypes);
	names = palloc(sizeof(Datum) * Max(ntypes, 1));
	for (int i = 0; i < ntypes; i++)
		names[i] = CStringGetTextDatum(format_type_be_qualified(types[i]));
	values[0] = CStringGetTextDatum(get_namespace_name(get_func_namespace(function)));
	values[1] = CStringGetTextDatum(get_func_name(function));
	values[2] = PointerGetDatum(construct_array(names, ntypes, TEXTOID, -1, false, TYPALIGN_INT));
	values[3] = ObjectIdGetDatum(qml_function_ref_owner(function));
}

/* The function that has the name and argument types now; InvalidOid if there is none. */
Oid
qml_function_ref_find(const QmlFunctionName *name)
{
	Oid types[FUNC_MAX_ARGS];
	int ntypes = 0;
	ListCell *lc;

	foreach(lc, name->types)
	{
		Oid type = qml_type_by_name(lfirst(lc));

		if (!OidIsValid(type) || ntypes == FUNC_MAX_ARGS)
			return InvalidOid;
		types[ntypes++] = type;
	}
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name->name),
						   PointerGetDatum(buildoidvector(types, ntypes)),
						   ObjectIdGetDatum(get_namespace_oid(name->schema, true)));
}

/* Comparator of signatures, for list_sort(). */
static int
compare_signatures(const ListCell *a, const ListCell *b)
{
	return strcmp(format_procedure(lfirst_oid(a)), format_procedure(lfirst_oid(b)));
}

static char *
join_signatures(List *functions)
{
	StringInfoData list;
	ListCell *lc;

	initStringInfo(&list);
	foreach(lc, functions)
	{
		if (foreach_current_index(lc) == MAX_NAMED)
		{
			appendStringInfoString(&list, ", ...");
			break;
		}
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", format_procedure(lfirst_oid(lc)));
	}
	return list.data;
}

/* Raises 42725 for a name that several functions have; those in `fitting` can be what is wanted. */
pg_noreturn static void
raise_ambiguous(const char *text, const char *word, List *functions, List *fitting)
{
	list_sort(functions, compare_signatures);
	list_sort(fitting, compare_signatures);
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
			 errmsg("more than one function named \"%s\"", text),
			 fitting != NIL ?
				 errdetail("These can be a %s: %s.", word, join_signatures(fitting)) :
				 errdetail("None of them can be a %s: %s.", word, join_signatures(functions)),
			 errhint("Give the types of its arguments too, as in \"%s\".",
					 format_procedure(linitial_oid(fitting != NIL ? fitting : functions)))));
}

/*
 * The function of a name, found by search_path, with or without its argument types.  Where
 * several have the name, those of pg_catalog count only if there are no others, because
 * everybody has them in the path; then the only one that fits is taken, if there is one.
 * word: what the function is to be, for the error.
 */
Oid
qml_function_ref_choose(const char *text, const char *word, bool (*fits)(Oid function, void *arg),
						void *arg)
{
	List *own = NIL;
	List *all = NIL;
	List *fitting = NIL;
	ListCell *lc;

	/* The error about a function that does not exist repeats the name. */
	if (strlen(text) > MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a function is too long"),
				 errdetail("It has %zu bytes; at most %d are allowed.", strlen(text), MAX_NAME)));
	if (strchr(text, '('))
		return DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(text)));
	for (FuncCandidateList found = qml_function_candidates(text); found; found = found->next)
	{
		all = lappend_oid(all, found->oid);
		if (get_func_namespace(found->oid) != PG_CATALOG_NAMESPACE)
			own = lappend_oid(own, found->oid);
	}
	if (list_length(all) <= 1)
		return DatumGetObjectId(DirectFunctionCall1(regprocin, CStringGetDatum(text)));
	if (own != NIL)
		all = own;
	if (list_length(all) == 1)
		return linitial_oid(all);
	foreach(lc, all)
	{
		if (fits(lfirst_oid(lc), arg))
			fitting = lappend_oid(fitting, lfirst_oid(lc));
	}
	if (list_length(fitting) != 1)
		raise_ambiguous(text, word, all, fitting);
	return linitial_oid(fitting);
}

/* The function as messages show it; it need not exist. */
char *
qml_function_ref_show(const QmlFunctionName *name)
{
	StringInfoData buffer;
	ListCell *lc;

	initStringInfo(&buffer);
	appendStringInfo(&buffer, "%s(", quote_qualified_identifier(name->schema, name->name));
	foreach(lc, name->types)
		appendStringInfo(&buffer, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 (char *) lfirst(lc));
	appendStringInfoChar(&buffer, ')');
	return buffer.data;
}

/* Whether a function of this owner may run as the role, as far as superusers matter. */
bool
qml_function_ref_superuser_allowed(Oid owner, Oid role)
{
	return !superuser_arg(role) || superuser_arg(owner);
}

/* Whether the present owner of the function may decide what the role does. */
bool
qml_function_ref_trusted(const QmlFunctionName *name, Oid owner, Oid role)
{
	return (owner == name->owner || superuser_arg(owner) || has_privs_of_role(owner, role)) &&
		   qml_function_ref_superuser_allowed(owner, role);
}
