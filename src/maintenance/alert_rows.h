/*
 * alert_rows.h
 *		Alerts: rows of qml.alert_data, and who is told of them.
 */
#ifndef QML_ALERT_ROWS_H
#define QML_ALERT_ROWS_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* An alert that is active. */
typedef struct QmlAlert
{
	pg_uuid_t id;
	const char *kind;
	int queue;			/* 0: it is about no queue, or about several */
	const char *method; /* empty: about none */
	TimestampTz since;
	TimestampTz calm_since; /* QML_NO_TIME: it is not calm */
	double value;			/* the worst, as far as noted */
	double bound;
	const char *detail;
} QmlAlert;

extern bool qml_alert_rows_lock(void);
extern List *qml_alert_rows_active(void);
extern void qml_alert_rows_begin(QmlAlert *alert);
extern void qml_alert_rows_note(const QmlAlert *alert);
extern void qml_alert_rows_end(const QmlAlert *alert, TimestampTz until);

#endif
