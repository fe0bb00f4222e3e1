/*
 * srf.c
 *		Set-returning functions that make all their rows in the first call: what
 *		they do to jobs must not depend on how many rows the caller reads.
 */
#include "postgres.h"

#include "funcapi.h"

#include "common/srf.h"

/* Room for at most so many rows. */
QmlSrfRows *
qml_srf_alloc(int most)
{
	QmlSrfRows *rows = palloc(sizeof(QmlSrfRows));

	rows->values = palloc(sizeof(Datum) * Max(most, 1));
	rows->count = 0;
	return rows;
}

/*
 * The columns that the caller's statement expects of a function which returns rows; NULL:
 * any.  The row type may have got more of them since the statement began.
 */
TupleDesc
qml_srf_expected(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;

	return info && IsA(info, ReturnSetInfo) ? info->expectedDesc : NULL;
}

/*
 * The body of a set-returning function: the first call has make() make all rows, in a
 * context that lives as long as the set; each call returns one of them.
 */
Datum
qml_srf_return(FunctionCallInfo fcinfo, QmlSrfRows *(*make)(FunctionCallInfo fcinfo))
{
	FuncCallContext *funcctx;
	QmlSrfRows *rows;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext oldcontext;

		funcctx = SRF_FIRSTCALL_INIT();
		oldcontext = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = make(fcinfo);
		MemoryContextSwitchTo(oldcontext);
	}
	funcctx = SRF_PERCALL_SETUP();
	rows = funcctx->user_fctx;
	if (funcctx->call_cntr < (uint64) rows->count)
	{
		/* The macro counts before it evaluates its argument. */
		Datum value = rows->values[funcctx->call_cntr];

		SRF_RETURN_NEXT(funcctx, value);
	}
	SRF_RETURN_DONE(funcctx);
}
