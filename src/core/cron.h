/*
 * cron.h
 *		Cron expressions: parsing, and the next time at which one fires.
 *
 * Pure C without anything of the server, so that it can be compiled into test
 * programs.  Times are seconds since 1970-01-01 00:00:00 UTC.
 */
#ifndef QML_CRON_H
#define QML_CRON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Years that the year field knows. */
#define QML_CRON_MIN_YEAR 1970
#define QML_CRON_MAX_YEAR 2199

/* Longest expression, in bytes. */
#define QML_CRON_MAX_LENGTH 255

/* No such time. */
#define QML_CRON_NEVER INT64_MIN

/*
 * A time zone: `at` tells the offset from UTC at an instant, in seconds, positive
 * to the east, and the first instant after it at which another offset may begin
 * (INT64_MAX: none).
 */
typedef struct QmlCronZone
{
	void (*at)(const struct QmlCronZone *zone, int64_t instant, int32_t *offset, int64_t *until);
} QmlCronZone;

/* A parsed expression.  Sets are bit masks; the day of the week 7 is 0. */
typedef struct QmlCron
{
	uint64_t seconds;
	uint64_t minutes;
	uint32_t hours;
	uint32_t days;		   /* of the month: bits 1 to 31 */
	uint32_t nearest_days; /* nW: bits 1 to 31 */
	bool last_day;		   /* L */
	bool last_workday;	   /* LW */
	uint16_t months;	   /* bits 1 to 12 */
	uint8_t weekdays;
	uint8_t nth_weekdays[6]; /* d#n: by n, 1 to 5 */
	uint8_t last_weekdays;	 /* dL */
	bool any_day;			 /* the field begins with * or ? */
	bool any_weekday;
	bool any_year;
	uint64_t years[4]; /* from QML_CRON_MIN_YEAR */
	bool elapsed;	   /* follows elapsed time: minute or hour begins with * */
} QmlCron;

/* Why an expression, or an interval (core/interval.h), was refused. */
typedef struct QmlCronError
{
	const char *field;	 /* "minute", ...; NULL: the expression as a whole */
	char text[64];		 /* the part that is wrong, perhaps cut; empty: none */
	int position;		 /* of that part: bytes of the expression before it */
	char reason[128];	 /* why it is refused, a clause without a full stop; empty: see allowed */
	const char *allowed; /* what is allowed instead, a clause without a full stop */
} QmlCronError;

/* More days than anybody asks for. */
#define QML_CRON_MANY_DAYS 100000

extern bool qml_cron_parse(const char *expression, QmlCron *cron, QmlCronError *error);
extern void qml_cron_set_error(QmlCronError *error, const char *expression, const char *text,
							   size_t length, const char *allowed);
extern int qml_cron_ticks_a_day(const QmlCron *cron);
extern int qml_cron_days_for(const QmlCron *cron, int ticks);

/*
 * The least instant after `after` at which the expression fires, or
 * QML_CRON_NEVER.  See core/cron.c for the rules.
 */
extern int64_t qml_cron_next_after(const QmlCron *cron, const QmlCronZone *zone, int64_t after);

#endif
