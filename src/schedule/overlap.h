/*
 * overlap.h
 *		Whether a schedule fires while jobs of it are unfinished.
 */
#ifndef QML_OVERLAP_H
#define QML_OVERLAP_H

#include "utils/uuid.h"

#define QML_OVERLAP_ALLOW "allow"

extern bool qml_overlap_is_policy(const char *name);
extern bool qml_overlap_is_watched(const char *policy);
extern bool qml_overlap_has_room(const char *policy, Datum open_jobs, Datum *still_open);
extern Datum qml_overlap_add(Datum open_jobs, const pg_uuid_t *job);

#endif
