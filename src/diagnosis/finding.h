/*
 * finding.h
 *		What a check or an explanation says.
 */
#ifndef QML_FINDING_H
#define QML_FINDING_H

#include "access/tupdesc.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* As the server marks such functions, but for any compiler that the server was not built with. */
#define QML_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))

/* What a check has found; it begins as unknown. */
typedef struct QmlFinding
{
	bool is_known; /* false: it cannot be told here, and the detail says why */
	bool ok;
	bool follows; /* not ok because another check is not, which says what helps */
	bool reloads; /* the remedy changes a setting, which takes effect later */
	char *detail; /* a sentence without a full stop */
	char *remedy; /* what helps: one statement with its semicolon, or a sentence; NULL: nothing */
} QmlFinding;

/* What a detail says where the remedy changes a setting. */
#define QML_FINDING_RELOAD "the remedy takes effect with SELECT pg_reload_conf()"

/* The rows of an explanation. */
typedef struct QmlReasons
{
	Tuplestorestate *store;
	TupleDesc desc;
	int count;
} QmlReasons;

extern void qml_finding_pass(QmlFinding *finding, const char *format, ...) QML_PRINTF(2, 3);
extern void qml_finding_fail(QmlFinding *finding, char *remedy, const char *format, ...)
	QML_PRINTF(3, 4);
extern void qml_finding_fail_setting(QmlFinding *finding, const char *name, const char *value,
									 const char *format, ...) QML_PRINTF(4, 5);
extern char *qml_finding_detail(const QmlFinding *finding);
extern void qml_finding_follow(QmlFinding *finding, const char *format, ...) QML_PRINTF(2, 3);
extern void qml_finding_leave(QmlFinding *finding, const char *format, ...) QML_PRINTF(2, 3);

extern void qml_finding_add_reason(QmlReasons *reasons, const char *reason, const char *detail,
								   const char *remedy);

extern char *qml_finding_time(TimestampTz time);
extern char *qml_finding_duration(int64 usecs);
extern char *qml_finding_setting(const char *name, const char *value);
extern char *qml_finding_call(const char *function, const char *arguments);
extern char *qml_finding_quote(const char *value);
extern char *qml_finding_count(int64 count, const char *one, const char *many);

#endif
