/*
 * args.h
 *		Arguments of SQL functions, checked.
 *
 * Each getter raises an error that names the argument: 22004 where NULL makes no
 * sense, 22023 where a value is out of range, 54000 where a document is too
 * large.
 */
#ifndef QML_ARGS_H
#define QML_ARGS_H

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

extern void qml_args_require(FunctionCallInfo fcinfo, int arg, const char *name);
extern char *qml_args_name(FunctionCallInfo fcinfo, int arg, const char *name, int maxlen);
extern char *qml_args_name_or_null(FunctionCallInfo fcinfo, int arg, const char *name, int maxlen);
extern bool qml_args_is_name(const char *value, int maxlen);
extern char *qml_args_queue(FunctionCallInfo fcinfo, int arg, const char *name);
extern bool qml_args_is_reserved_queue(const char *name);
extern void qml_args_check_queue(const char *name);
extern int qml_args_int(FunctionCallInfo fcinfo, int arg, const char *name, int min, int max);
extern bool qml_args_flag(FunctionCallInfo fcinfo, int arg, const char *name);
extern pg_uuid_t *qml_args_uuid(FunctionCallInfo fcinfo, int arg, const char *name);
extern TimestampTz qml_args_time_or_null(FunctionCallInfo fcinfo, int arg, const char *name);
extern TimestampTz qml_args_time_after(FunctionCallInfo fcinfo, int arg, const char *name);
extern int64 qml_args_duration(FunctionCallInfo fcinfo, int arg, const char *name);
extern int64 qml_args_wait_time(FunctionCallInfo fcinfo, int arg, const char *name);
extern int qml_args_timeout_ms(FunctionCallInfo fcinfo, int arg, const char *name);
extern Datum qml_args_document(FunctionCallInfo fcinfo, int arg, const char *name);
extern void qml_args_check_document(Datum document, const char *name);
extern Datum qml_args_object(FunctionCallInfo fcinfo, int arg, const char *name);
extern Jsonb *qml_args_options(FunctionCallInfo fcinfo, int arg, const char *name);
extern Datum qml_args_text(FunctionCallInfo fcinfo, int arg, int maxbytes);
extern void qml_args_array(FunctionCallInfo fcinfo, int arg, const char *name, Oid type,
						   Datum **elements, bool **nulls, int *count);
extern char **qml_args_queues(FunctionCallInfo fcinfo, int arg, const char *name, int *count);
extern char **qml_args_methods(FunctionCallInfo fcinfo, int arg, const char *name, int *count);
extern Datum qml_args_text_array(char **strings, int count);

extern int64 qml_args_interval_usecs(const Interval *interval);
extern Datum qml_args_output(FunctionCallInfo fcinfo, Datum value, bool isnull);

#endif
