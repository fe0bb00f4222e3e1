/*
 * sql_ack.h
 *		Arguments of acknowledgements, for the functions that acknowledge and do more.
 */
#ifndef QML_SQL_ACK_H
#define QML_SQL_ACK_H

#include "fmgr.h"

#include "jobs/ack.h"

extern pg_uuid_t *qml_sql_ack_read_success(FunctionCallInfo fcinfo, QmlAck *ack);
extern int qml_sql_ack_read_successes(FunctionCallInfo fcinfo, pg_uuid_t **ids, QmlAck **acks);

#endif
