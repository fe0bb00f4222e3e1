/*
 * reference.h
 *		When cron expressions fire, worked out the slow way.
 */
#ifndef QML_TEST_REFERENCE_H
#define QML_TEST_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "zone.h"

/* Instants that the calendar of the reference covers, with a few days to spare. */
#define REFERENCE_FIRST INT64_C(-5364662400) /* 1800-01-01 */
#define REFERENCE_LAST	INT64_C(26192246400) /* 2800-01-01 */

/* What an expression wants, one flag a value. */
typedef struct Want
{
	bool second[60];
	bool minute[60];
	bool hour[24];
	bool day[32];
	bool nearest[32]; /* nW */
	bool last_day;
	bool last_workday;
	bool month[13];
	bool weekday[8]; /* 0 and 7 are Sunday, either will do */
	bool nth[8][6];	 /* d#n */
	bool last_weekday[8];
	bool any_year;
	bool year[QML_CRON_MAX_YEAR + 1];
	bool both_days; /* a day must match day of month and day of week, not either */
	bool fixed;		/* does not follow elapsed time */
} Want;

/* Why an expression fires at an instant. */
typedef enum Reason
{
	REASON_NONE,	/* it does not */
	REASON_MATCH,	/* the local time matches */
	REASON_GAP,		/* a local time that was skipped just before matches */
	REASON_REPEATED /* it does not: the local time matches, but not for the first time */
} Reason;

extern void reference_init(void);
extern Reason reference_fires(const Want *want, const Zone *zone, int64_t instant);
extern int64_t reference_next(const Want *want, const Zone *zone, int64_t after, int64_t last);

#endif
