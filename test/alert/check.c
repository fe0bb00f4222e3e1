/*
 * check.c
 *		Tests of src/core/alert.c: when an alert begins and ends.
 *
 * Each case is a row of values, one a second, and the changes that they make: "b" it begins, "w" it
 * is worse, "c" it is calm, "r" it is back, "e" it ends, "." nothing.  The bound is 10, and a value
 * must be low for 3 seconds.
 */
#include <stdio.h>
#include <string.h>

#include "core/alert.h"

#define SECOND INT64_C(1000000)
#define NEEDED (3 * SECOND)

typedef struct Case
{
	const char *what;
	double bound;
	double values[12];
	const char *changes;
} Case;

static const Case cases[] = {
	{"nothing begins at the bound", 10, {0, 9, 10}, "..."},
	{"it begins above it, once", 10, {9, 10.1, 11, 12}, ".b.."},
	{"it is noted when it has doubled", 10, {11, 21, 22, 30, 43, 44}, "b.w..w"},
	{"it ends when it was low for long", 10, {11, 8, 8, 8, 8, 8}, "bc..e."},
	{"a value just below the bound is not low", 10, {11, 9, 9, 9, 9, 9}, "b....."},
	{"what was low may come near the bound", 10, {11, 8, 10, 9, 10}, "bc..e"},
	{"above the bound it is back, and begins anew to be low",
	 10,
	 {11, 8, 11, 8, 8, 8, 8},
	 "bcrc..e"},
	{"a value around the bound has one alert", 10, {11, 9, 11, 9, 11, 8, 11, 8, 11}, "b....crcr"},
	{"after its end it can begin again", 10, {11, 8, 8, 8, 8, 11}, "bc..eb"},
	{"a bound of 0: something is there", 0, {0, 1, 1, 2, 0, 0, 0, 0}, ".b.wc..e"},
	{"what is back is not calm any more", 0, {1, 0, 5, 5, 0, 0, 0, 0}, "bcr.c..e"},
};

static const char names[] = {
	[QML_ALERT_STAYS] = '.', [QML_ALERT_BEGINS] = 'b', [QML_ALERT_WORSE] = 'w',
	[QML_ALERT_CALM] = 'c',	 [QML_ALERT_BACK] = 'r',   [QML_ALERT_ENDS] = 'e',
};

/* What the caller of qml_alert_change() keeps. */
static void
follow(QmlAlertState *state, QmlAlertChange change, double value)
{
	if (state->calm)
		state->calm_for += SECOND;
	switch (change)
	{
		case QML_ALERT_BEGINS:
			*state = (QmlAlertState){.active = true, .noted = value};
			break;
		case QML_ALERT_WORSE:
			state->noted = value;
			break;
		case QML_ALERT_BACK:
			state->calm = false;
			state->noted = value > state->noted ? value : state->noted;
			break;
		case QML_ALERT_CALM:
			state->calm = true;
			state->calm_for = SECOND;
			break;
		case QML_ALERT_ENDS:
			*state = (QmlAlertState){.active = false};
			break;
		case QML_ALERT_STAYS:
			break;
	}
}

int
main(void)
{
	int passed = 0;
	int failed = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const Case *one = &cases[i];
		QmlAlertState state = {.active = false};
		char seen[16] = "";

		for (size_t n = 0; n < strlen(one->changes); n++)
		{
			QmlAlertChange change = qml_alert_change(&state, one->values[n], one->bound, NEEDED);

			seen[n] = names[change];
			follow(&state, change, one->values[n]);
		}
		if (strcmp(seen, one->changes) == 0)
			passed++;
		else
		{
			failed++;
			printf("failed: %s: %s, not %s\n", one->what, seen, one->changes);
		}
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
