/*
 * bulk.h
 *		Bulk operations: made and steered by people, done in the background.
 */
#ifndef QML_BULK_H
#define QML_BULK_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

extern void qml_bulk_make(const char *action, const char *query, Jsonb *options, pg_uuid_t *id);
extern bool qml_bulk_pause(const pg_uuid_t *id, Datum reason);
extern bool qml_bulk_resume(const pg_uuid_t *id);
extern bool qml_bulk_cancel(const pg_uuid_t *id, Datum reason);
extern bool qml_bulk_may_see(Oid made_by);

#endif
