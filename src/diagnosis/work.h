/*
 * work.h
 *		Why nobody takes jobs of a method from a queue.
 */
#ifndef QML_WORK_H
#define QML_WORK_H

#include "diagnosis/finding.h"
#include "model/job.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* What is explained: a job, or the jobs of a method in a queue. */
typedef struct QmlCase
{
	const QmlQueue *queue;
	const QmlJob *job;		   /* NULL: not one job */
	bool contents;			   /* the caller may see what is in the job */
	Datum method;			   /* text */
	const char *name;		   /* of the method */
	const QmlHandler *handler; /* of the method; NULL: it has none */
	bool is_named;			   /* workers outside take it, although it has a handler */
	bool by_name;			   /* only workers that name the method take it */
	uint64 last_hash;		   /* of another method that was looked at last, */
	bool last_named;		   /* - and whether workers name it */
	TimestampTz now;
	QmlReasons *reasons;
} QmlCase;

extern void qml_work_init(QmlCase *about, const QmlQueue *queue, Datum method, Oid created_by,
						  QmlReasons *reasons);
extern int qml_work_needs(const QmlCase *about);
extern bool qml_work_is_same_kind(QmlCase *about, Datum method, Oid created_by);

extern void qml_work_explain_pause(QmlCase *about);
extern void qml_work_explain_handler(QmlCase *about);
extern void qml_work_explain_fetches(QmlCase *about);
extern void qml_work_explain_limits(QmlCase *about);
extern void qml_work_explain_workers(QmlCase *about);

#endif
