/*
 * call.c
 *		Calling handlers.
 *
 * A function is called as an expression, to_jsonb(f(...)), that is planned once for
 * the jobs of a transaction: SQL functions are inlined, defaults filled in, the
 * privilege EXECUTE checked, and there is no query around it.  A procedure is
 * called as CALL would, in a portal that outlives the transactions that it ends.
 *
 * What a handler returns becomes the result of its job, as to_jsonb() makes it;
 * void and NULL are none.  Whoever calls has a transaction, and undoes it after an
 * error.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "miscadmin.h"
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
};

/* While arguments are made of a payload; stays so after an error in that. */
static bool binding = false;

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

static Param *
make_param(int number, Oid type)
{
	Param *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = number + 1;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(type);
	param->location = -1;
	return param;
}

/* The arguments that are present; by name if some may be left to their defaults. */
static List *
make_args(const QmlSignature *signature, const bool *present)
{
	List *args = NIL;

	for (int i = 0; i < signature->nargs; i++)
	{
		const QmlArgument *arg = &signature->args[i];
		Param *param = make_param(i, arg->type);
		NamedArgExpr *named;

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

static FuncExpr *
make_call(const QmlSignature *signature, const bool *present)
{
	return makeFuncExpr(signature->function, signature->result, make_args(signature, present),
						get_typcollation(signature->result), DEFAULT_COLLATION_OID,
						COERCE_EXPLICIT_CALL);
}

static Expr *
make_expression(const QmlSignature *signature, const bool *present)
{
	FuncExpr *call = make_call(signature, present);

	if (signature->result == VOIDOID || signature->result == JSONBOID)
		return (Expr *) call;
	return (Expr *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(call), InvalidOid, InvalidOid,
								 COERCE_EXPLICIT_CALL);
}

/* Plans the call for the arguments that are present. */
static void
plan(QmlCall *call)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(call->context);
	Expr *expression = expression_planner(make_expression(call->signature, call->present));

	call->state = ExecInitExprWithParams(expression, call->params);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Makes a handler ready that can be called, and is a function; in the current
 * memory context, to the end of the transaction or the next error.
 */
QmlCall *
qml_call_prepare(const QmlHandler *handler)
{
	QmlCall *call = palloc0(sizeof(QmlCall));

	call->handler = handler;
	call->signature = qml_handler_signature(handler);
	call->context = CurrentMemoryContext;
	call->params = make_params(call->signature);
	call->present = palloc0(sizeof(bool) * Max(call->signature->nargs, 1));
	call->econtext = CreateStandaloneExprContext();
	call->econtext->ecxt_param_list_info = call->params;
	return call;
}

/* Whether it calls what the handler is now. */
bool
qml_call_is_of(const QmlCall *call, const QmlHandler *handler)
{
	return call->handler == handler && call->signature == qml_handler_signature(handler);
}

bool
qml_call_is_procedure(const QmlHandler *handler)
{
	return qml_handler_signature(handler)->procedure;
}

/* Whether the last error was that a payload is not what the handler takes. */
bool
qml_call_was_binding(void)
{
	bool was = binding;

	binding = false;
	return was;
}

/* Fills the parameters from the job; *changed: others are present than before. */
static void
fill_params(const QmlSignature *signature, const QmlJob *job, ParamListInfo params, bool *present,
			bool *changed)
{
	Datum values[FUNC_MAX_ARGS];
	bool nulls[FUNC_MAX_ARGS] = {false};
	bool given[FUNC_MAX_ARGS] = {true};

	/* An error that was none of the payload may have left it. */
	binding = false;
	if (signature->takes == QML_TAKES_PAYLOAD)
		values[0] = job->payload;
	else if (signature->takes == QML_TAKES_JOB)
		values[0] = qml_job_to_row(job, true);
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

static Datum
check_result(Datum result)
{
	if (result != (Datum) 0)
		qml_args_check_document(result, "result");
	return result;
}

/*
 * Calls the function for a job; returns its result, or 0, in the current memory
 * context.
 */
Datum
qml_call_function(QmlCall *call, const QmlJob *job)
{
	Datum result;
	bool changed;
	bool isnull;

	fill_params(call->signature, job, call->params, call->present, &changed);
	if (changed || call->state == NULL)
		plan(call);
	ResetExprContext(call->econtext);
	result = ExecEvalExprSwitchContext(call->state, call->econtext, &isnull);
	if (isnull || call->signature->result == VOIDOID)
		return (Datum) 0;
	return check_result(PointerGetDatum(DatumGetJsonbPCopy(result)));
}

/* ----- procedures ----- */

/* Receives the one row of output arguments that a procedure may have. */
typedef struct OutputReceiver
{
	DestReceiver pub;
	MemoryContext context;
	Datum result;
} OutputReceiver;

static void
output_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static bool
output_receive(TupleTableSlot *slot, DestReceiver *self)
{
	OutputReceiver *receiver = (OutputReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(receiver->context);
	Datum json = DirectFunctionCall1(row_to_json, ExecFetchSlotHeapTupleDatum(slot));

	receiver->result = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
output_nothing(DestReceiver *self)
{
}

static CallStmt *
make_call_statement(const QmlSignature *signature, const bool *present)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(signature->function));
	CallStmt *statement = makeNode(CallStmt);

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", signature->function);
	statement->funcexpr = make_call(signature, present);
	statement->funcexpr->args = expand_function_arguments(statement->funcexpr->args, false,
														  signature->result, tuple);
	ReleaseSysCache(tuple);
	return statement;
}

static void
execute_call(const QmlHandler *handler, const QmlJob *job, bool atomic, DestReceiver *receiver)
{
	const QmlSignature *signature = qml_handler_signature(handler);
	ParamListInfo params = make_params(signature);
	bool *present = palloc0(sizeof(bool) * Max(signature->nargs, 1));
	bool changed;

	fill_params(signature, job, params, present, &changed);
	ExecuteCallStmt(make_call_statement(signature, present), params, atomic, receiver);
}

/* Within a portal, as pquery.c does; an error leaves the rest to the abort. */
static void
execute_call_in_portal(const QmlHandler *handler, const QmlJob *job, DestReceiver *receiver)
{
	Portal portal = CreatePortal("", true, true);
	MemoryContext oldcontext = CurrentMemoryContext;

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
	/* The procedure may have ended the one that was there at first. */
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
 * Unless atomic it may end the transaction, and another one is current then; both
 * the current memory context and the job must live longer.
 */
Datum
qml_call_procedure(const QmlHandler *handler, const QmlJob *job, bool atomic)
{
	OutputReceiver receiver = {.pub = {output_receive, output_startup, output_nothing,
									   output_nothing, DestNone},
							   .context = CurrentMemoryContext};

	if (atomic)
		execute_call(handler, job, true, &receiver.pub);
	else
		execute_call_in_portal(handler, job, &receiver.pub);
	return check_result(receiver.result);
}
