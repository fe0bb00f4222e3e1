/*
 * signature.c
 *		What a handler takes, and how a payload is converted to its arguments.
 *
 * There are three kinds of handlers:
 *
 *	 - of the payload: one argument of type jsonb, with any name;
 *	 - of the job: one argument of type qml.job;
 *	 - typed: each argument gets its value from the key of the payload, which must be
 *	   an object, that has its name.
 *
 * The values of a typed handler are converted as jsonb_populate_record() converts
 * them.  The payload does not fit, and error QM008 is raised, if it has a key that is
 * no argument, lacks a key of an argument without a default, has a value that cannot
 * be converted, or null where the function is strict.
 *
 * A payload is checked twice.  qml_signature_check() runs while the job is enqueued,
 * with the rights of the role that enqueues it.  It must not run code of other users
 * (the check of a domain, the input function of a type), and so converts only values
 * of built-in types and enums.  qml_signature_bind() converts all of them when the
 * job runs, as the role of the handler.  Both convert under the same fixed settings
 * (common/conversion.c), so that what a value means does not depend on the session.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "common/conversion.h"
#include "errcodes.h"
#include "qml.h"
#include "userfn/signature.h"

/* Why a function cannot be a handler, apart from its arguments; NULL: it can. */
static char *
refuse_function(Form_pg_proc proc)
{
	if (isAnyTempNamespace(proc->pronamespace))
		return "It is temporary.";
	if (proc->prokind == PROKIND_AGGREGATE)
		return "It is an aggregate.";
	if (proc->prokind == PROKIND_WINDOW)
		return "It is a window function.";
	if (proc->prorettype == TRIGGEROID || proc->prorettype == EVENT_TRIGGEROID)
		return "It is a trigger function.";
	if (proc->proretset)
		return "It returns a set.";
	if (OidIsValid(proc->provariadic))
		return "It takes a variable number of arguments.";
	if (IsPolymorphicType(proc->prorettype))
		return "It is polymorphic.";
	if (get_typtype(proc->prorettype) == TYPTYPE_PSEUDO && proc->prorettype != VOIDOID &&
		proc->prorettype != RECORDOID)
		return psprintf("It returns the pseudo-type %s.", format_type_be(proc->prorettype));
	return NULL;
}

/* Why a typed handler cannot have the argument; NULL: it can. */
static char *
refuse_argument(int number, const char *name, Oid type)
{
	if (IsPolymorphicType(type))
		return "It is polymorphic.";
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		return psprintf("Argument %d is of the pseudo-type %s.", number, format_type_be(type));
	if (name == NULL || *name == '\0')
		return psprintf("Argument %d has no name, so no key of the payload can match it.", number);
	return NULL;
}

/*
 * Whether a value of the type is made by functions of the server alone.  Domains and
 * composite types, also built-in ones, can lead to checks and types of other users.
 */
static bool
is_builtin(Oid type)
{
	Oid element = get_element_type(type);

	if (OidIsValid(element))
		type = element;
	return get_typtype(type) == TYPTYPE_ENUM ||
		   (type < FirstNormalObjectId && get_typtype(type) == TYPTYPE_BASE);
}

/*
 * Prepares a call of jsonb_populate_record(row, payload) where the row has one column
 * of the argument's name and type.  The function looks at the declared type of its
 * first argument: with RECORD, it takes the row's own type.
 */
static void
prepare_conversion(QmlArgument *arg)
{
	Const *row = makeConst(RECORDOID, -1, InvalidOid, -1, (Datum) 0, true, false);
	Const *payload = makeConst(JSONBOID, -1, InvalidOid, -1, (Datum) 0, true, false);
	Datum value = (Datum) 0;
	bool isnull = true;

	arg->desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(arg->desc, 1, arg->name, arg->type, -1, 0);
	arg->desc = BlessTupleDesc(arg->desc);
	arg->row = HeapTupleGetDatum(heap_form_tuple(arg->desc, &value, &isnull));
	fmgr_info(F_JSONB_POPULATE_RECORD, &arg->convert);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, RECORDOID,
											 list_make2(row, payload), InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &arg->convert);
}

/* Reads the parameters that a call gives a value for. */
static void
read_arguments(HeapTuple tuple, QmlSignature *signature)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	Oid *types;
	char **names;
	char *modes;
	int count = get_func_arg_info(tuple, &types, &names, &modes);

	signature->args = palloc0(sizeof(QmlArgument) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		char mode = modes ? modes[i] : FUNC_PARAM_IN;
		QmlArgument *arg = &signature->args[signature->nargs];

		if (mode == FUNC_PARAM_TABLE || mode == FUNC_PARAM_OUT)
			continue;
		arg->name = names && *names[i] ? names[i] : NULL;
		arg->type = types[i];
		signature->nargs++;
		arg->optional = signature->nargs > proc->pronargs - proc->pronargdefaults;
	}
}

/* Decides which kind of handler it is; returns why it is none, or NULL. */
static char *
choose_kind(QmlSignature *signature, Oid job_type)
{
	signature->takes = QML_TAKES_ARGS;
	if (signature->nargs == 1 && signature->args[0].type == JSONBOID)
		signature->takes = QML_TAKES_PAYLOAD;
	else if (signature->nargs == 1 && signature->args[0].type == job_type)
		signature->takes = QML_TAKES_JOB;
	if (signature->takes != QML_TAKES_ARGS)
		return NULL;
	for (int i = 0; i < signature->nargs; i++)
	{
		QmlArgument *arg = &signature->args[i];
		char *reason = refuse_argument(i + 1, arg->name, arg->type);

		if (reason)
			return reason;
		arg->builtin = is_builtin(arg->type);
		arg->needs = qml_conversion_needs(arg->type);
		signature->bind_needs |= arg->needs & QML_NEEDS_ANYTHING;
		if (arg->builtin)
			signature->check_needs |= arg->needs & QML_NEEDS_ANYTHING;
		prepare_conversion(arg);
	}
	return NULL;
}

/*
 * The signature of a function, in the current memory context.  NULL if it does not
 * exist or cannot be a handler; *reason is a sentence that says why.
 */
QmlSignature *
qml_signature_load(Oid function, Oid job_type, char **reason)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	QmlSignature *signature;
	Form_pg_proc proc;

	if (!HeapTupleIsValid(tuple))
	{
		*reason = "It does not exist.";
		return NULL;
	}
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	signature = palloc0(sizeof(QmlSignature));
	signature->function = function;
	signature->owner = proc->proowner;
	signature->procedure = proc->prokind == PROKIND_PROCEDURE;
	signature->strict = proc->proisstrict;
	signature->result = proc->prorettype;
	signature->result_needs = qml_conversion_needs(proc->prorettype);
	*reason = refuse_function(proc);
	if (*reason == NULL)
		read_arguments(tuple, signature);
	ReleaseSysCache(tuple);
	if (*reason == NULL)
		*reason = choose_kind(signature, job_type);
	return *reason ? NULL : signature;
}

static char *
function_name(const QmlSignature *signature)
{
	return format_procedure(signature->function);
}

static const QmlArgument *
find_argument(const QmlSignature *signature, const char *name, int length)
{
	for (int i = 0; i < signature->nargs; i++)
	{
		const QmlArgument *arg = &signature->args[i];

		if (strncmp(arg->name, name, length) == 0 && arg->name[length] == '\0')
			return arg;
	}
	return NULL;
}

/* As much of the caller's text as a message may show. */
static char *
clip_text(const char *text, int length)
{
	return pnstrdup(text, pg_mbcliplen(text, length, QML_MAX_NAME));
}

/* Raises QM008 unless the payload is an object whose keys are all arguments. */
static void
check_keys(const QmlSignature *signature, Jsonb *payload)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(payload))
		ereport(ERROR,
				(errcode(ERRCODE_QML_PAYLOAD_MISMATCH),
				 errmsg("the payload must be a JSON object"),
				 errdetail("Its keys are the arguments of %s.", function_name(signature))));
	it = JsonbIteratorInit(&payload->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
	{
		if (token == WJB_KEY &&
			find_argument(signature, value.val.string.val, value.val.string.len) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_QML_PAYLOAD_MISMATCH),
					 errmsg("the payload has an unknown key \"%s\"",
							clip_text(value.val.string.val, value.val.string.len)),
					 errdetail("There is no such argument of %s.", function_name(signature))));
	}
}

static void
raise_mismatch(const QmlSignature *signature, const QmlArgument *arg, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_PAYLOAD_MISMATCH),
			 errmsg("the value of key \"%s\" of the payload is not of type %s", arg->name,
					format_type_be(arg->type)),
			 errdetail("It is an argument of %s: %s.", function_name(signature),
					   clip_text(detail, strlen(detail)))));
}

/*
 * Whether an error is about the value, and not about resources, locks or a cancel.
 * Built-in types whose values are names, or have a syntax of their own, raise errors
 * of other classes as well (regclass, tsquery).
 */
static bool
is_about_value(const QmlArgument *arg, int sqlerrcode)
{
	int category = ERRCODE_TO_CATEGORY(sqlerrcode);

	if (arg->builtin && (sqlerrcode == ERRCODE_UNDEFINED_SCHEMA ||
						 (category == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
						  sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE)))
		return true;
	return category == ERRCODE_DATA_EXCEPTION ||
		   category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		   sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/*
 * Converts the value of a key; an error about the value is raised as QM008 instead.  The
 * caller has fixed the settings that this depends on, but for search_path: it is fixed for
 * the value of a built-in type alone, which calls no code of users.
 */
static Datum
convert_value(const QmlSignature *signature, QmlArgument *arg, Datum payload, bool *isnull)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum row = (Datum) 0;
	int level = qml_conversion_begin(arg->needs & QML_NEEDS_NAMES);
	HeapTupleData tuple;

	/* jsonb_populate_record() remembers row types, and does not notice that they change. */
	if (!arg->builtin)
	{
		arg->convert.fn_extra = NULL;
		arg->convert.fn_mcxt = CurrentMemoryContext;
	}
	PG_TRY();
	{
		row = FunctionCall2(&arg->convert, arg->row, payload);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!is_about_value(arg, error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		/* Always raises: after a caught error, the transaction must not go on. */
		raise_mismatch(signature, arg, error->message ? error->message : "missing error text");
	}
	PG_END_TRY();
	qml_conversion_end(level);

	tuple.t_data = DatumGetHeapTupleHeader(row);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	return heap_getattr(&tuple, 1, arg->desc, isnull);
}

/*
 * Whether the payload has the key of an argument.  Raises QM008 if it has not and
 * must, or if its value must not be null.
 */
static bool
find_value(const QmlSignature *signature, Jsonb *payload, const QmlArgument *arg, bool *isnull)
{
	JsonbValue value;
	bool found = getKeyJsonValueFromContainer(&payload->root, arg->name, strlen(arg->name),
											  &value) != NULL;

	if (!found && !arg->optional)
		ereport(ERROR,
				(errcode(ERRCODE_QML_PAYLOAD_MISMATCH),
				 errmsg("the payload has no key \"%s\" of type %s", arg->name,
						format_type_be(arg->type)),
				 errdetail("It is an argument of %s that has no default.",
						   function_name(signature))));
	*isnull = found && value.type == jbvNull;
	if (*isnull && signature->strict)
		raise_mismatch(signature, arg, "null is not allowed, because the function is strict");
	return found;
}

/* Raises QM008 if the payload does not fit, without running code of other users. */
void
qml_signature_check(const QmlSignature *signature, Datum payload)
{
	Jsonb *document;
	int level;

	if (signature->takes != QML_TAKES_ARGS)
		return;
	document = DatumGetJsonbP(payload);
	check_keys(signature, document);
	level = qml_conversion_begin(signature->check_needs);
	for (int i = 0; i < signature->nargs; i++)
	{
		QmlArgument *arg = &signature->args[i];
		bool isnull;

		if (find_value(signature, document, arg, &isnull) && !isnull && arg->builtin)
			(void) convert_value(signature, arg, JsonbPGetDatum(document), &isnull);
	}
	qml_conversion_end(level);
}

/*
 * Converts the payload to the arguments of a typed handler; those that are not present
 * get their default.  Raises QM008 if the payload does not fit.
 */
void
qml_signature_bind(const QmlSignature *signature, Datum payload, Datum *values, bool *nulls,
				   bool *present)
{
	Jsonb *document = DatumGetJsonbP(payload);
	int level;

	Assert(signature->takes == QML_TAKES_ARGS);
	Assert(signature->nargs <= FUNC_MAX_ARGS);
	check_keys(signature, document);
	level = qml_conversion_begin(signature->bind_needs);
	for (int i = 0; i < signature->nargs; i++)
	{
		QmlArgument *arg = &signature->args[i];

		values[i] = (Datum) 0;
		present[i] = find_value(signature, document, arg, &nulls[i]);
		/* A null is converted, too, as a domain can refuse it. */
		if (present[i] && (!nulls[i] || !arg->builtin))
			values[i] = convert_value(signature, arg, JsonbPGetDatum(document), &nulls[i]);
	}
	qml_conversion_end(level);
}
