/*
 * told_job.h
 *		A job as the jsonb object that an after-commit hook is told.
 */
#ifndef QML_TOLD_JOB_H
#define QML_TOLD_JOB_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/jsonb.h"

/* What is known of the columns of qml.job, for all jobs of a call. */
typedef struct QmlToldJob
{
	TupleDesc desc;
	FmgrInfo *output; /* of columns that become strings */
	Datum *values;	  /* of the job at hand */
	bool *nulls;
} QmlToldJob;

extern void qml_told_job_begin(QmlToldJob *told);
extern void qml_told_job_push(QmlToldJob *told, JsonbParseState **state, Datum row,
							  bool with_payload);
extern void qml_told_job_end(QmlToldJob *told);

#endif
