/*
 * fault.c
 *		Fault points for tests; empty without -DQML_FAULTS.
 *
 * A point that is armed logs one line before it fails, so that a test can tell a
 * fault that was survived from one that was never reached.
 */
#include "postgres.h"

#include "common/fault.h"

#ifdef QML_FAULTS

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#define MAX_POINTS 32
#define MAX_NAME   64

/* A point that is armed. */
typedef struct FaultPoint
{
	char name[MAX_NAME];
	char action[8];
	int nth;	/* passage at which it acts; of a limit: its value */
	int passed; /* so far */
} FaultPoint;

static char *faults;
static FaultPoint points[MAX_POINTS];
static int npoints;

static const char *at_commit; /* reached just before the transaction commits; NULL: none */

static bool
parse_point(const char *spec, FaultPoint *point)
{
	int fields;

	memset(point, 0, sizeof(*point));
	point->nth = 1;
	fields = sscanf(spec, " %63[a-z_.]:%7[a-z]:%d", point->name, point->action, &point->nth);
	return fields >= 2 && point->nth >= 1 &&
		   (strcmp(point->action, "error") == 0 || strcmp(point->action, "always") == 0 ||
			strcmp(point->action, "fatal") == 0 || strcmp(point->action, "abort") == 0 ||
			strcmp(point->action, "wait") == 0 || strcmp(point->action, "limit") == 0);
}

/* Parses the setting; returns how many points, -1 if it is malformed. */
static int
parse_points(const char *list, FaultPoint *into)
{
	char *copy = pstrdup(list);
	char *rest = copy;
	char *spec;
	int n = 0;

	while ((spec = strsep(&rest, ",")) != NULL)
	{
		if (*spec == '\0')
			continue;
		if (n == MAX_POINTS || !parse_point(spec, &into[n]))
			return -1;
		n++;
	}
	return n;
}

static bool
check_faults(char **newval, void **extra, GucSource source)
{
	FaultPoint parsed[MAX_POINTS];

	if (parse_points(*newval, parsed) >= 0)
		return true;
	GUC_check_errdetail(
		"A fault is name:action[:nth] with action error, always, fatal, abort, wait or limit.");
	return false;
}

static void
assign_faults(const char *newval, void *extra)
{
	npoints = parse_points(newval, points);
}

/* Waits until nobody has the advisory lock of the tests: a heavyweight one, which they can see. */
static void
wait_at_gate(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, QML_FAULT_GATE, 1);
	(void) LockAcquire(&tag, ShareLock, false, false);
	(void) LockRelease(&tag, ShareLock, false);
}

/* Fails or waits, as the point says. */
static void
act_at(const FaultPoint *point)
{
	if (strcmp(point->action, "wait") == 0)
	{
		wait_at_gate();
		return;
	}
	elog(LOG, "qml fault point \"%s\" reached: %s", point->name, point->action);
	if (strcmp(point->action, "abort") == 0)
	{
		signal(SIGABRT, SIG_DFL);
		raise(SIGABRT);
	}
	ereport(strcmp(point->action, "fatal") == 0 ? FATAL : ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("qml fault at \"%s\"", point->name)));
}

/* Execution has reached a point. */
void
qml_fault_reached(const char *name)
{
	for (int i = 0; i < npoints; i++)
	{
		FaultPoint *point = &points[i];

		if (strcmp(point->name, name) != 0)
			continue;
		point->passed++;
		if (point->passed == point->nth ||
			(point->passed > point->nth && strcmp(point->action, "always") == 0))
			act_at(point);
	}
}

/* A limit of the code, or what the test has put in its place. */
int
qml_fault_limit(const char *name, int usual)
{
	for (int i = 0; i < npoints; i++)
	{
		if (strcmp(points[i].name, name) == 0 && strcmp(points[i].action, "limit") == 0)
			return points[i].nth;
	}
	return usual;
}

/* The point is reached just before the transaction commits or is prepared. */
void
qml_fault_at_commit(const char *name)
{
	at_commit = name;
}

/* Any end of the transaction forgets the point. */
static void
before_commit(XactEvent event, void *arg)
{
	const char *name = at_commit;

	at_commit = NULL;
	if (name && (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		qml_fault_reached(name);
}

void
qml_fault_init(void)
{
	DefineCustomStringVariable("qml.faults",
							   "Fault points to arm: name:action[:nth], separated by commas.", NULL,
							   &faults, "", PGC_SUSET, 0, check_faults, assign_faults, NULL);
	RegisterXactCallback(before_commit, NULL);
}

#endif
