/*
 * signature.c
 *		What a handler takes, and how a payload becomes its arguments.
 *
 * There are three kinds of handlers: of the payload (one argument of type jsonb,
 * whatever its name), of the job (one of type qml.job), and typed ones, whose
 * arguments are filled by the keys of the payload, an object, by name.  Values
 * are converted as jsonb_populate_record() does.  A key without an argument, an
 * argument without a key or a default, a value that does not convert, and null
 * for a function that is not called on null input are error QM008.
 *
 * A payload that is enqueued is checked as the role that enqueues it.  So that this
 * runs nobody's code but the server's, only values of built-in types and of
 * enumerations are converted then; the others are when the job runs, as the role
 * of the handler.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "errcodes.h"
#include "qml.h"
#include "userfn/signature.h"

/* Why a function of this kind and result cannot be a handler; NULL: it can. */
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

static char *
refuse_argument(int number, const char *name, Oid type)
{
	if (IsPolymorphicType(type))
		return "It is polymorphic.";
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		return psprintf("Argument %d is of the pseudo-type %s.", number, format_type_be(type));
	if (name == NULL || *name == '\0')
		return psprintf("Argument %d has no name that a key of the payload could have.", number);
	return NULL;
}

/* Whether a value is made by functions of the server alone, which ask nobody's. */
static bool
is_plain(Oid type)
{
	Oid element = get_element_type(type);

	if (OidIsValid(element))
		type = element;
	return get_typtype(type) == TYPTYPE_ENUM ||
		   (type < FirstNormalObjectId && get_typtype(type) == TYPTYPE_BASE);
}

/*
 * jsonb_populate_record() learns from its first argument's type that the row tells
 * which record it is.
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

/* The arguments that the caller gives, and all parameters. */
static void
read_arguments(HeapTuple tuple, QmlSignature *signature)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	Oid *types;
	char **names;
	char *modes;
	int count = get_func_arg_info(tuple, &types, &names, &modes);

	signature->parameters = palloc0(sizeof(QmlParameter) * Max(count, 1));
	signature->nparameters = 0;
	signature->args = palloc0(sizeof(QmlArgument) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		char mode = modes ? modes[i] : FUNC_PARAM_IN;
		QmlParameter *parameter = &signature->parameters[signature->nparameters];
		QmlArgument *arg = &signature->args[signature->nargs];

		if (mode == FUNC_PARAM_TABLE)
			continue;
		parameter->name = names && *names[i] ? names[i] : NULL;
		parameter->output = mode == FUNC_PARAM_OUT;
		signature->nparameters++;
		if (parameter->output)
			continue;
		arg->name = parameter->name;
		arg->type = types[i];
		signature->nargs++;
		arg->optional = signature->nargs > proc->pronargs - proc->pronargdefaults;
	}
}

static char *
decide_takes(QmlSignature *signature, Oid job_type)
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
		arg->plain = is_plain(arg->type);
		prepare_conversion(arg);
	}
	return NULL;
}

/*
 * What a function takes, in the current memory context.  NULL, and *reason, a
 * sentence, when it is not there or cannot be a handler.
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
	*reason = refuse_function(proc);
	if (*reason == NULL)
		read_arguments(tuple, signature);
	ReleaseSysCache(tuple);
	if (*reason == NULL)
		*reason = decide_takes(signature, job_type);
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

/* As much of what the caller wrote as a message may show. */
static char *
shown(const char *text, int length)
{
	return pnstrdup(text, pg_mbcliplen(text, length, QML_MAX_NAME));
}

/* Every key must be an argument. */
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
							shown(value.val.string.val, value.val.string.len)),
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
			 errdetail("An argument of %s: %s.", function_name(signature),
					   shown(detail, strlen(detail)))));
}

/*
 * Errors about the value, as opposed to those of the machine.  Types of the server
 * whose values are names or have a syntax complain of these.
 */
static bool
is_about_value(const QmlArgument *arg, int sqlerrcode)
{
	int category = ERRCODE_TO_CATEGORY(sqlerrcode);

	if (arg->plain && (sqlerrcode == ERRCODE_UNDEFINED_SCHEMA ||
					   (category == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
						sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE)))
		return true;
	return category == ERRCODE_DATA_EXCEPTION ||
		   category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		   sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/* Converts the value of a key; turns an error about it into one that names the key. */
static Datum
convert(const QmlSignature *signature, QmlArgument *arg, Datum payload, bool *isnull)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum row = (Datum) 0;
	HeapTupleData tuple;

	/* What is remembered of a row type does not outlive its change. */
	if (!arg->plain)
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
		/* Raises again: nothing goes on after a caught error. */
		raise_mismatch(signature, arg, error->message);
	}
	PG_END_TRY();

	tuple.t_data = DatumGetHeapTupleHeader(row);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	return heap_getattr(&tuple, 1, arg->desc, isnull);
}

static JsonbValue *
find_value(Jsonb *payload, const QmlArgument *arg, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&payload->root, arg->name, strlen(arg->name), value);
}

/* Whether the payload has the key; QM008 if it must have, or if null cannot be. */
static bool
check_argument(const QmlSignature *signature, Jsonb *payload, const QmlArgument *arg, bool *isnull)
{
	JsonbValue value;
	bool found = find_value(payload, arg, &value) != NULL;

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

/* Raises QM008 if the payload does not fit, as far as that can be told by anybody. */
void
qml_signature_check(const QmlSignature *signature, Datum payload)
{
	Jsonb *document;

	if (signature->takes != QML_TAKES_ARGS)
		return;
	document = DatumGetJsonbP(payload);
	check_keys(signature, document);
	for (int i = 0; i < signature->nargs; i++)
	{
		QmlArgument *arg = &signature->args[i];
		bool isnull;

		if (check_argument(signature, document, arg, &isnull) && !isnull && arg->plain)
			(void) convert(signature, arg, JsonbPGetDatum(document), &isnull);
	}
}

/*
 * The arguments that the payload stands for; those that are not present have a
 * default.  Raises QM008 if the payload does not fit.
 */
void
qml_signature_bind(const QmlSignature *signature, Datum payload, Datum *values, bool *nulls,
				   bool *present)
{
	Jsonb *document = DatumGetJsonbP(payload);

	check_keys(signature, document);
	for (int i = 0; i < signature->nargs; i++)
	{
		QmlArgument *arg = &signature->args[i];

		values[i] = (Datum) 0;
		present[i] = check_argument(signature, document, arg, &nulls[i]);
		/* A domain may not allow null. */
		if (present[i] && (!nulls[i] || !arg->plain))
			values[i] = convert(signature, arg, JsonbPGetDatum(document), &nulls[i]);
	}
}
