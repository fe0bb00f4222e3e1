/*-------------------------------------------------------------------------
 *
 * empty.c
 *	  The least that a fetch without a job can cost: a function of the same arguments and the
 *	  same row type, written in C, which returns no row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/execnodes.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(empty_fetch);

Datum
empty_fetch(PG_FUNCTION_ARGS)
{
	((ReturnSetInfo *) fcinfo->resultinfo)->isDone = ExprEndResult;
	PG_RETURN_NULL();
}
