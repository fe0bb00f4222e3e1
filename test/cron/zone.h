/*
 * zone.h
 *		Time zones of the tests of cron expressions.
 */
#ifndef QML_TEST_ZONE_H
#define QML_TEST_ZONE_H

#include <stddef.h>
#include <stdint.h>

#include "core/cron.h"

/*
 * Part i of a zone's time begins at since[i] and has offset[i].  The first one
 * begins at INT64_MIN.  Neighbours may have the same offset.
 */
typedef struct Zone
{
	QmlCronZone base; /* first, so that a pointer to it is one to the zone */
	char *name;
	size_t parts;
	int64_t *since;
	int32_t *offset;
} Zone;

typedef struct ZoneList
{
	size_t count;
	Zone *zones; /* by name */
} ZoneList;

extern void zone_init(Zone *zone, const char *name);
extern void zone_add(Zone *zone, int64_t since, int32_t offset);
extern void zone_free(Zone *zone);
extern size_t zone_part(const Zone *zone, int64_t instant);
extern int64_t zone_until(const Zone *zone, size_t part);

extern void zone_list_load(ZoneList *list);
extern void zone_list_free(ZoneList *list);
extern const Zone *zone_list_find(const ZoneList *list, const char *name);

#endif
