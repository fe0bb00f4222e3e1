/*
 * timezone.c
 *		Time zones of recurring jobs, from the server's own zone data.
 *
 * A zone has a full name of the tz database: Area/Location, UTC, GMT, or a word
 * such as Japan.  Abbreviations (EST, CET) are refused, because what they stand for
 * depends on settings and differs between countries.  So are POSIX rules (EST5EDT), the
 * server's own zone (localtime), and zones that count leap seconds.
 */
#include "postgres.h"

#include <ctype.h>

#include "qml.h"
#include "schedule/timezone.h"

/* Whether a name that the zone data know is one of those above. */
static bool
is_full_name(const char *name)
{
	if (strcmp(name, "UTC") == 0 || strcmp(name, "GMT") == 0)
		return true;
	if (strchr(name, '/'))
		return true;
	/* A word.  Abbreviations have capitals only, files that are no zones have none. */
	return isupper((unsigned char) name[0]) && islower((unsigned char) name[strlen(name) - 1]);
}

/* "Etc/GMT", a sign and hours: the only full names with digits. */
static bool
is_etc_gmt(const char *name)
{
	char *end;
	long hours;

	if (pg_strncasecmp(name, "Etc/GMT", 7) != 0 || (name[7] != '+' && name[7] != '-') ||
		!isdigit((unsigned char) name[8]))
		return false;
	hours = strtol(name + 8, &end, 10);
	return *end == '\0' && hours <= (name[7] == '+' ? 12 : 14);
}

/* POSIX rules have digits and commas; posix/ and right/ are copies of all zones. */
static bool
looks_like_rule(const char *name)
{
	if (pg_strncasecmp(name, "posix/", 6) == 0 || pg_strncasecmp(name, "right/", 6) == 0)
		return true;
	return strpbrk(name, "0123456789,<>:") != NULL && !is_etc_gmt(name);
}

/* QmlCronZone: the offset at an instant, and until when it holds. */
static void
get_offset_at(const QmlCronZone *base, int64_t instant, int32_t *offset, int64_t *until)
{
	pg_time_t from = (pg_time_t) instant;
	pg_time_t boundary;
	long before;
	long after;
	int before_isdst;
	int after_isdst;

	if (pg_next_dst_boundary(&from, &before, &before_isdst, &boundary, &after, &after_isdst,
							 ((const QmlZone *) base)->tz) > 0)
		*until = boundary;
	else
		*until = PG_INT64_MAX;
	*offset = (int32_t) before;
}

/* Finds a zone by its name; false when there is none, or its name is not accepted. */
bool
qml_timezone_find(const char *name, QmlZone *zone)
{
	if (name[0] == '\0' || strlen(name) > TZ_STRLEN_MAX || looks_like_rule(name))
		return false;
	zone->base.at = get_offset_at;
	zone->tz = pg_tzset(name);
	return zone->tz && pg_tz_acceptable(zone->tz) && is_full_name(pg_get_timezone_name(zone->tz));
}

#define EPOCH_SECONDS ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* The next time after `after` at which it fires; QML_NO_TIME: never again. */
TimestampTz
qml_timezone_next(const QmlCron *cron, const QmlZone *zone, TimestampTz after)
{
	int64 seconds = after / USECS_PER_SEC - (after % USECS_PER_SEC < 0);
	int64 next = qml_cron_next_after(cron, &zone->base, seconds + EPOCH_SECONDS);

	/* Beyond the range of timestamps there is no next time. */
	if (next == QML_CRON_NEVER || next - EPOCH_SECONDS >= END_TIMESTAMP / USECS_PER_SEC)
		return QML_NO_TIME;
	Assert((next - EPOCH_SECONDS) * USECS_PER_SEC > after);
	return (next - EPOCH_SECONDS) * USECS_PER_SEC;
}
