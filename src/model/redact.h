/*
 * redact.h
 *		What is hidden of jobs from those who only look at them.
 */
#ifndef QML_REDACT_H
#define QML_REDACT_H

#include "model/acl.h"
#include "model/queue.h"

/* What stands where something is hidden. */
#define QML_REDACTED "***"

extern void qml_redact_init(const QmlRedact *(*of_method)(Datum method), bool (*any_method)(void));
extern bool qml_redact_has(const QmlQueue *queue, Datum method);
extern bool qml_redact_exists(void);
extern QmlAccess qml_redact_limit(QmlAccess access, const QmlQueue *queue, const char *name,
								  Oid created_by, Datum method);
extern QmlAccess qml_redact_access(int queue_id, Datum method, Oid created_by);
extern bool qml_redact_allow_contents(void);
extern Datum qml_redact_document(const QmlQueue *queue, Datum method, QmlRedactDocument which,
								 Datum document);
extern Datum qml_redact_value(const QmlQueue *queue, Datum method, const char *column, Datum value);
extern Datum qml_redact_show(QmlAccess access, const QmlQueue *queue, Datum method,
							 const char *column, Datum value);

#endif
