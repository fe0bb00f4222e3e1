/*
 * call.c
 *		Calls the handler of a job.
 *
 * A function is called as an expression.  It is planned once for the jobs of a
 * transaction: the planner inlines SQL functions and fills in defaults, the executor
 * checks the privilege EXECUTE, and no query surrounds it.  A procedure can
 * end the transaction, so it is called as CALL would be: from a portal, whose memory
 * survives COMMIT.
 *
 * The return value, converted by to_jsonb(), is the result of the job; void and NULL
 * mean no result.  Of a procedure, it is an object of its output arguments.  The
 * conversion has fixed settings (common/conversion.c); the handler has its own.
 *
 * The caller has started a transaction as the role of the handler, and aborts it, or
 * the subtransaction, after an error.  A QmlCall is invalid after that.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/params.h"
#include "optimizer/optimizer.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/args.h"
#include "common/conversion.h"
#include "userfn/call.h"

struct QmlCall
{
	const QmlHandler *handler;
	const QmlSignature *signature;
	MemoryContext context;
	ParamListInfo params;
	bool *present; /* which of the arguments the expression has */
	ExprState *state;
	ExprContext *econtext;
	FmgrInfo convert; /* to_jsonb() of the function's type, unless that is jsonb or void */
};

/* True while a payload is converted; an error in the conversion leaves it true. */
static bool binding = false;

/* Parameters of an expression, one for each argument, without values. */
static ParamListInfo
make_params(const QmlSignature *signature)
{
	ParamListInfo params = makeParamList(Max(signature->nargs, 1));

	for (int i = 0; i < signature->nargs; i++)
	{
		params->params[i].ptype = signature->args[i].type;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].isnull = true;
	}
	return params;
}

/* The arguments that are present: by name, so that any of them can be left out. */
static List *
make_args(const QmlSignature *signature, const bool *present)
{
	List *args = NIL;

	for (int i = 0; i < signature->nargs; i++)
	{
		const QmlArgument *arg = &signature->args[i];
		Param *param = makeNode(Param);
		NamedArgExpr *named;

		param->paramkind = PARAM_EXTERN;
		param->paramid = i + 1;
		param->paramtype = arg->type;
		param->paramtypmod = -1;
		param->paramcollid = get_typcollation(arg->type);
		param->location = -1;
		if (signature->takes != QML_TAKES_ARGS)
			return list_make1(param);
		if (!present[i])
			continue;
		named = makeNode(NamedArgExpr);
		named->arg = (Expr *) param;
		named->name = arg->name;
		named->argnumber = i;
		named->location = -1;
		args = lappend(args, named);
	}
	return args;
}

/* Whether the function has an argument of a type with a collation. */
static bool
takes_collation(const QmlSignature *signature)
{
	for (int i = 0; i < signature->nargs; i++)
	{
		if (OidIsValid(get_typcollation(signature->args[i].type)))
			return true;
	}
	return false;
}

/* As the parser would make it. */
static FuncExpr *
make_call(const QmlSignature *signature, const bool *present)
{
	return makeFuncExpr(signature->function, signature->result, make_args(signature, present),
						get_typcollation(signature->result),
						takes_collation(signature) ? DEFAULT_COLLATION_OID : InvalidOid,
						COERCE_EXPLICIT_CALL);
}

/* Plans the call with the arguments that are present. */
static void
plan_call(QmlCall *call)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->context);
	Expr *expression = (Expr *) make_call(call->signature, call->present);

	call->state = ExecInitExprWithParams(expression_planner(expression), call->params);
	MemoryContextSwitchTo(oldcontext);
}

/* Prepares to_jsonb(), which looks at the declared type of its argument. */
static void
prepare_conversion(QmlCall *call)
{
	Const *value = makeConst(call->signature->result, -1, InvalidOid, -1, (Datum) 0, true, false);

	fmgr_info(F_TO_JSONB, &call->convert);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(value), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &call->convert);
}

/*
 * Prepares a handler that can be called and is a function.  The result is allocated in
 * the current memory context, and valid until the transaction ends or an error occurs.
 */
QmlCall *
qml_call_prepare(const QmlHandler *handler)
{
	QmlCall *call = palloc0(sizeof(QmlCall));

	call->handler = handler;
	call->signature = qml_handler_signature(handler);
	Assert(call->signature != NULL && !call->signature->procedure);
	call->context = CurrentMemoryContext;
	call->params = make_params(call->signature);
	call->present = palloc0(sizeof(bool) * Max(call->signature->nargs, 1));
	call->econtext = CreateStandaloneExprContext();
	call->econtext->ecxt_param_list_info = call->params;
	if (call->signature->result != VOIDOID && call->signature->result != JSONBOID)
		prepare_conversion(call);
	return call;
}

/* Whether it still calls the handler, and the handler's function did not change. */
bool
qml_call_is_of(const QmlCall *call, const QmlHandler *handler)
{
	return call->handler == handler && call->signature == qml_handler_signature(handler);
}

/* Of a handler that can be called. */
bool
qml_call_is_procedure(const QmlHandler *handler)
{
	return qml_handler_signature(handler)->procedure;
}

/*
 * Whether the last error occurred while the payload was converted.  The handler itself
 * can raise QM008, too, by enqueueing jobs: this tells the two apart.  Resets the answer.
 */
bool
qml_call_was_binding(void)
{
	bool was = binding;

	binding = false;
	return was;
}

/* Sets the parameters from the job; *changed: other arguments are present than before. */
static void
set_params(const QmlSignature *signature, const QmlJob *job, ParamListInfo params, bool *present,
		   bool *changed)
{
	Datum values[FUNC_MAX_ARGS];
	bool nulls[FUNC_MAX_ARGS] = {false};
	bool given[FUNC_MAX_ARGS] = {true};

	/* Nobody asked for it after the last error. */
	binding = false;
	if (signature->takes == QML_TAKES_PAYLOAD)
		values[0] = job->payload;
	else if (signature->takes == QML_TAKES_JOB)
		values[0] = qml_job_row(job, QML_ACCESS_FULL);
	else
	{
		binding = true;
		qml_signature_bind(signature, job->payload, values, nulls, given);
		binding = false;
	}
	*changed = memcmp(given, present, sizeof(bool) * signature->nargs) != 0;
	memcpy(present, given, sizeof(bool) * signature->nargs);
	for (int i = 0; i < signature->nargs; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls[i] || !given[i];
	}
}

/* Returns the result; raises 54000 if it is too large. */
static Datum
check_result(Datum result)
{
	if (result != (Datum) 0)
		qml_args_check_document(result, "result");
	return result;
}

/* What the function returned, which is not null, as jsonb. */
static Datum
convert_result(QmlCall *call, Datum value)
{
	MemoryContext oldcontext;
	int level;

	if (call->signature->result == JSONBOID)
		return value;
	oldcontext = MemoryContextSwitchTo(call->econtext->ecxt_per_tuple_memory);
	level = qml_conversion_begin(call->signature->result_needs);
	value = FunctionCall1(&call->convert, value);
	qml_conversion_end(level);
	MemoryContextSwitchTo(oldcontext);
	return value;
}

/* Calls the function for a job; returns its result, or 0, in the current memory context. */
Datum
qml_call_function(QmlCall *call, const QmlJob *job)
{
	Datum result;
	bool changed;
	bool isnull;

	Assert(IsTransactionState());
	set_params(call->signature, job, call->params, call->present, &changed);
	if (changed || call->state == NULL)
		plan_call(call);
	ResetExprContext(call->econtext);
	result = ExecEvalExprSwitchContext(call->state, call->econtext, &isnull);
	if (isnull || call->signature->result == VOIDOID)
		return (Datum) 0;
	return check_result(PointerGetDatum(DatumGetJsonbPCopy(convert_result(call, result))));
}

/* ----- procedures ----- */

/* Receives the row of output arguments, if a procedure has any. */
typedef struct OutputReceiver
{
	DestReceiver pub;
	MemoryContext context;
	Datum result;
} OutputReceiver;

static void
ignore_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

/* Keeps the row as a jsonb object, in memory that survives the transaction. */
static bool
receive_output(TupleTableSlot *slot, DestReceiver *self)
{
	OutputReceiver *receiver = (OutputReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(receiver->context);
	int level = qml_conversion_begin(QML_NEEDS_ANYTHING);
	Datum json = DirectFunctionCall1(row_to_json, ExecFetchSlotHeapTupleDatum(slot));

	qml_conversion_end(level);
	receiver->result = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
ignore_event(DestReceiver *self)
{
}

/* Executes the statement that the parser would make of a CALL with the job's arguments. */
static void
execute_call(const QmlHandler *handler, const QmlJob *job, bool atomic, DestReceiver *receiver)
{
	const QmlSignature *signature = qml_handler_signature(handler);
	ParamListInfo params = make_params(signature);
	bool *present = palloc0(sizeof(bool) * Max(signature->nargs, 1));
	CallStmt *statement = makeNode(CallStmt);
	HeapTuple tuple;
	bool changed;

	set_params(signature, job, params, present, &changed);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(signature->function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", signature->function);
	/* Unlike functions, procedures get their defaults from the parser. */
	statement->funcexpr = make_call(signature, present);
	statement->funcexpr->args = expand_function_arguments(statement->funcexpr->args, false,
														  signature->result, tuple);
	ReleaseSysCache(tuple);
	ExecuteCallStmt(statement, params, atomic, receiver);
}

/*
 * Does what pquery.c does for a CALL outside a transaction block.  The procedure can end
 * transactions only if an active portal exists and holds its snapshot.  After an error the
 * portal is marked as failed, and the abort of the transaction drops it.
 */
static void
execute_call_in_portal(const QmlHandler *handler, const QmlJob *job, DestReceiver *receiver)
{
	Portal portal = CreatePortal("", true, true);
	MemoryContext oldcontext = CurrentMemoryContext;

	Assert(ActivePortal == NULL && !IsSubTransaction());
	portal->visible = false;
	portal->status = PORTAL_READY;
	MarkPortalActive(portal);
	ActivePortal = portal;
	PortalContext = portal->portalContext;
	EnsurePortalSnapshotExists();

	PG_TRY();
	{
		execute_call(handler, job, false, receiver);
	}
	PG_CATCH();
	{
		MarkPortalFailed(portal);
		ActivePortal = NULL;
		PortalContext = NULL;
		PG_RE_THROW();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(oldcontext);
	/* After a COMMIT or ROLLBACK of the procedure, there may be no snapshot. */
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	portal->portalSnapshot = NULL;
	ActivePortal = NULL;
	PortalContext = NULL;
	MarkPortalDone(portal);
	PortalDrop(portal, false);
}

/*
 * Calls the procedure for a job; returns an object of its output arguments, or 0.
 * Unless atomic, the procedure can end the transaction and another one is current
 * afterwards: the current memory context and the job must outlive transactions.
 */
Datum
qml_call_procedure(const QmlHandler *handler, const QmlJob *job, bool atomic)
{
	OutputReceiver receiver = {.pub = {receive_output, ignore_startup, ignore_event, ignore_event,
									   DestNone},
							   .context = CurrentMemoryContext};

	Assert(qml_call_is_procedure(handler));
	Assert(IsTransactionState());

	if (atomic)
		execute_call(handler, job, true, &receiver.pub);
	else
		execute_call_in_portal(handler, job, &receiver.pub);
	return check_result(receiver.result);
}
