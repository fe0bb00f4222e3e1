/*
 * timezone.c
 *		Time zones of recurring jobs, from the server's own zone data.
 *
 * A zone has a full name of the tz database, as the view pg_timezone_names lists them:
 * what counts is that the zone data have a file of that name, not how it is spelled (CET
 * and EST5EDT are such names).  Abbreviations (CEST) are refused, because what they stand
 * for depends on settings and differs between countries.  So are POSIX rules (UTC+3),
 * zones that count leap seconds, and files that are no names of zones: the zone of this
 * server, which is another one where the schedule is restored, and copies below posix/.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "common/suggest.h"
#include "qml.h"
#include "schedule/timezone.h"

/* Longest abbreviation of a zone. */
#define MAX_ABBREVIATION 5

/* Files beside those that have the names of zones. */
static bool
is_extra_file(const char *name)
{
	return pg_strcasecmp(name, "localtime") == 0 || pg_strcasecmp(name, "posixrules") == 0 ||
		   pg_strncasecmp(name, "posix/", 6) == 0;
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
	char file[TZ_STRLEN_MAX + 1];

	if (name[0] == '\0' || strlen(name) + 1 > TZ_STRLEN_MAX || is_extra_file(name))
		return false;
	zone->base.at = get_offset_at;
	/* With a colon before it, a name is that of a file, and never a POSIX rule. */
	snprintf(file, sizeof(file), ":%s", name);
	zone->tz = pg_tzset(file);
	/* These two need no file; the server takes GMT as a rule. */
	if (zone->tz == NULL && (pg_strcasecmp(name, "UTC") == 0 || pg_strcasecmp(name, "GMT") == 0))
		zone->tz = pg_tzset(name);
	return zone->tz && pg_tz_acceptable(zone->tz);
}

/*
 * The names of all zones.  They are kept for the session, as the files of all zones are read for
 * them, which takes some 100 ms.
 */
static List *
all_names(void)
{
	static List *known = NIL;
	MemoryContext context;
	MemoryContext oldcontext;
	pg_tzenum *zones;
	pg_tz *tz;
	List *names = NIL;

	if (known != NIL)
		return known;
	/* Kept when it is complete: this may be canceled. */
	context = AllocSetContextCreate(CurrentMemoryContext, "qml time zones", ALLOCSET_SMALL_SIZES);
	zones = pg_tzenumerate_start();
	while ((tz = pg_tzenumerate_next(zones)) != NULL)
	{
		const char *name = pg_get_timezone_name(tz);

		CHECK_FOR_INTERRUPTS();
		if (is_extra_file(name))
			continue;
		oldcontext = MemoryContextSwitchTo(context);
		names = lappend(names, pstrdup(name));
		MemoryContextSwitchTo(oldcontext);
	}
	pg_tzenumerate_end(zones);
	MemoryContextSetParent(context, TopMemoryContext);
	known = names;
	return known;
}

/*
 * What an unknown name may have been meant to be, for a hint (see common/suggest.h); also
 * the last part of a name alone, such as Berlin.  Nothing for abbreviations: another one
 * is another time.
 */
const char *
qml_timezone_guess(const char *name)
{
	QmlSuggestion suggestion;
	ListCell *lc;

	if (strlen(name) <= MAX_ABBREVIATION)
		return "";
	qml_suggest_begin(&suggestion, name);
	foreach(lc, all_names())
	{
		const char *known = lfirst(lc);
		const char *slash = strrchr(known, '/');

		qml_suggest_consider(&suggestion, known);
		if (slash)
			qml_suggest_consider_as(&suggestion, slash + 1, known);
	}
	return qml_suggest_question(&suggestion);
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
