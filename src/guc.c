/*
 * guc.c
 *		Settings.  Each can be changed by a reload, and by a superuser for a
 *		session; none by ordinary users, because they bound what jobs may do.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "compat.h"
#include "guc.h"
#include "qml.h"

int qml_max_retries = 5;
int qml_job_timeout = 5 * 60 * 1000;
int qml_lease = 5 * 60 * 1000;
int qml_succeeded_ttl = 24 * 60 * 60;
int qml_failed_ttl = 7 * 24 * 60 * 60;
int qml_max_payload_size = 1024;

void
qml_guc_init(void)
{
	DefineCustomIntVariable("qml.max_retries",
							"Retries of a job whose caller and queue say nothing about them.", NULL,
							&qml_max_retries, 5, 0, QML_MAX_RETRIES, PGC_SUSET, 0, NULL, NULL,
							NULL);
	DefineCustomIntVariable(
		"qml.job_timeout",
		"How long an attempt may run if its caller and queue say nothing about it.", NULL,
		&qml_job_timeout, 5 * 60 * 1000, 1, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("qml.lease",
							"How long a claim holds if its worker and queue say nothing about it.",
							NULL, &qml_lease, 5 * 60 * 1000, 1, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("qml.succeeded_ttl", "How long succeeded and deleted jobs are kept.",
							"0 keeps none.", &qml_succeeded_ttl, 24 * 60 * 60, 0,
							(int) QML_MAX_SECONDS, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("qml.failed_ttl", "How long failed jobs are kept.", "0 keeps none.",
							&qml_failed_ttl, 7 * 24 * 60 * 60, 0, (int) QML_MAX_SECONDS, PGC_SUSET,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("qml.max_payload_size",
							"Largest payload, metadata, progress or result of a job.", NULL,
							&qml_max_payload_size, 1024, 1, 256 * 1024, PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("qml");
}
