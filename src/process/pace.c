/*
 * pace.c
 *		How long the jobs of each method took lately, in this process.
 *
 * Jobs of methods that have been short for some runs in a row may run in groups.  A long
 * run, or a job that cannot be in a group, sets its method's count far below zero, so that
 * a method whose jobs vary does not undo a group time and again.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "process/pace.h"

#define SHORT_MS 1

/* Runs in a row that must have been short, and how far back one long run sets. */
#define ENOUGH_SHORT_RUNS 10
#define LONG_RUN_PENALTY  (-10 * ENOUGH_SHORT_RUNS)

typedef struct Pace
{
	char method[NAMEDATALEN * 4]; /* hash key; longer ones never run in groups */
	bool seen;					  /* one has run here */
	int short_runs;				  /* in a row */
} Pace;

static HTAB *paces;

void
qml_pace_init(void)
{
	HASHCTL control = {.keysize = sizeof(((Pace *) 0)->method), .entrysize = sizeof(Pace)};

	paces = hash_create("qml methods", 64, &control, HASH_ELEM | HASH_STRINGS);
}

/* The entry of the job's method, made if there is none; NULL if its name is too long. */
static Pace *
find_pace(const QmlJob *job)
{
	Pace *pace;
	char key[sizeof(pace->method)] = {0};
	text *method = DatumGetTextPP(job->method);
	bool found;

	if (VARSIZE_ANY_EXHDR(method) >= sizeof(key))
		return NULL;
	text_to_cstring_buffer(method, key, sizeof(key));
	pace = hash_search(paces, key, HASH_ENTER, &found);
	if (!found)
	{
		pace->seen = false;
		pace->short_runs = 0;
	}
	return pace;
}

bool
qml_pace_is_short(const QmlJob *job)
{
	Pace *pace = find_pace(job);

	return pace && pace->short_runs >= ENOUGH_SHORT_RUNS;
}

/* A job of the method has run; fits_group: whether it could have been in a group. */
void
qml_pace_note(const QmlJob *job, double milliseconds, bool fits_group)
{
	Pace *pace = find_pace(job);

	if (pace == NULL)
		return;
	/* The first one fills the caches, and says nothing about the others. */
	if (!pace->seen)
		pace->seen = true;
	else if (fits_group && milliseconds <= SHORT_MS)
		pace->short_runs = Min(pace->short_runs + 1, ENOUGH_SHORT_RUNS);
	else
		pace->short_runs = LONG_RUN_PENALTY;
}
