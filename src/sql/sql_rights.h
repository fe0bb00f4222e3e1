/*
 * sql_rights.h
 *		What SQL functions that everybody can call ask for before anything else.
 */
#ifndef QML_SQL_RIGHTS_H
#define QML_SQL_RIGHTS_H

#include "fmgr.h"

extern void qml_sql_require_queue(FunctionCallInfo fcinfo, int capabilities, int arg);
extern void qml_sql_require_handler(void);
extern void qml_sql_require_work_or_handler(void);

#endif
