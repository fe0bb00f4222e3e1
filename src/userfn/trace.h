/*
 * trace.h
 *		The W3C trace context of the job that runs.
 */
#ifndef QML_TRACE_H
#define QML_TRACE_H

#include "mb/pg_wchar.h"
#include "utils/uuid.h"

#include "qml.h"

/* 00-<trace id>-<span id>-<flags> */
#define QML_TRACEPARENT_LENGTH 55

typedef struct QmlTrace
{
	bool traced;
	double milliseconds;
	char queue[QML_MAX_QUEUE_NAME * MAX_MULTIBYTE_CHAR_LEN + 1];
	char traceparent[QML_TRACEPARENT_LENGTH + 1]; /* of this attempt */
	char parent[QML_TRACEPARENT_LENGTH + 1];	  /* from the metadata; "": none */
} QmlTrace;

extern Datum qml_trace_run(const pg_uuid_t *job, Datum queue, Datum metadata, Datum (*work)(void));
extern QmlTrace qml_trace_take(void);
extern Datum qml_trace_add_parent(Datum metadata);

#endif
