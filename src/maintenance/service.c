/*
 * service.c
 *		Which databases are served by background processes, and what the others lack.
 *
 * What is shown is in shared memory.  The launcher writes it after each of its rounds;
 * whether there is a scheduler now is in the slots.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/guc.h"
#include "ipc/databases.h"
#include "ipc/slots.h"
#include "maintenance/service.h"

#define COLUMNS 7

static const char *
state_name(QmlDatabaseState state)
{
	switch (state)
	{
		case QML_DATABASE_FREE:
			return "off";
		case QML_DATABASE_STARTING:
			return "starting";
		case QML_DATABASE_SERVED:
			return "served";
		case QML_DATABASE_WAITING:
			return "waiting";
		case QML_DATABASE_RESTING:
			return "resting";
		case QML_DATABASE_FAILED:
			return "failed";
		case QML_DATABASE_COPY:
			return "copy";
		case QML_DATABASE_UNKNOWN:
			return "unknown";
		case QML_DATABASE_REFUSED:
			return "refused";
	}
	elog(ERROR, "unexpected state %d of a database", state);
}

/* Why no more processes can be started. */
static char *
describe_limit(int limit, bool by_server)
{
	if (by_server)
		return psprintf(
			"the server has slots for %d background processes of qml (max_worker_processes = %d)",
			limit, max_worker_processes);
	return psprintf("qml.max_workers allows %d background processes", limit);
}

/* What a database lacks, as a sentence without a full stop; NULL: nothing. */
static char *
describe_problem(const QmlDatabaseView *view, int workers, const char *limit)
{
	switch (view->state)
	{
		case QML_DATABASE_WAITING:
			return psprintf("it waits for a scheduler: %s", limit);
		case QML_DATABASE_RESTING:
			return psprintf("it has a scheduler only in turn: %s", limit);
		case QML_DATABASE_FAILED:
			return "its scheduler failed and is tried again: see the server's log";
		case QML_DATABASE_COPY:
			return "its jobs are a copy from another database: see qml_adopt()";
		case QML_DATABASE_UNKNOWN:
			return "it is named in qml.databases, but does not exist";
		case QML_DATABASE_REFUSED:
			return "it is named in qml.databases, but is a template or does not allow connections";
		case QML_DATABASE_STARTING:
		case QML_DATABASE_SERVED:
		case QML_DATABASE_FREE:
			break;
	}
	if (view->waiting_roles > 0 && workers == 0 && qml_workers > 0)
		return psprintf("its handlers wait for a worker: %s", limit);
	return NULL;
}

/* problem: NULL if there is none. */
static void
put_row(Tuplestorestate *store, TupleDesc desc, const QmlDatabaseView *view, const char *problem)
{
	bool served = view->state == QML_DATABASE_SERVED;
	Datum values[COLUMNS];
	bool nulls[COLUMNS] = {false};

	values[0] = CStringGetTextDatum(view->name);
	values[1] = CStringGetTextDatum(state_name(view->state));
	values[2] = Int32GetDatum(qml_slots_count_workers(view->database, InvalidOid));
	values[3] = Int32GetDatum(view->waiting_roles);
	values[4] = TimestampTzGetDatum(served ? GetCurrentTimestamp() : view->served_at);
	nulls[4] = !served && view->served_at == 0;
	values[5] = TimestampTzGetDatum(view->due);
	nulls[5] = served || view->due == QML_WAKE_NEVER;
	nulls[6] = problem == NULL;
	values[6] = problem ? CStringGetTextDatum(problem) : (Datum) 0;
	if (!OidIsValid(view->database))
		nulls[2] = nulls[3] = nulls[4] = nulls[5] = true;
	tuplestore_putvalues(store, desc, values, nulls);
}

/*
 * This database, of which the launcher does not show anything; returns what it lacks.  hidden: so
 * many databases are worked in, and have no place to be shown.
 */
static const char *
view_own(QmlDatabaseView *view, int hidden)
{
	const char *problem;

	memset(view, 0, sizeof(*view));
	view->database = MyDatabaseId;
	view->due = QML_WAKE_NEVER;
	strlcpy(view->name, get_database_name(MyDatabaseId), NAMEDATALEN);
	if (qml_shmem == NULL)
		problem = "qml is not in shared_preload_libraries";
	else if (!qml_enabled)
		problem = "qml.enabled is off";
	else if (RecoveryInProgress())
		problem = "the server is a standby";
	else if (pg_atomic_read_u32(&qml_shmem->launcher) == 0)
		problem = psprintf("the qml launcher does not run (max_worker_processes = %d): see the "
						   "server's log",
						   max_worker_processes);
	else if (strcmp(qml_databases, "*") != 0)
		problem = "it is not named in qml.databases, or is not known to the launcher yet";
	else if (hidden > 0)
	{
		view->state = qml_slots_find_scheduler(MyDatabaseId) ? QML_DATABASE_SERVED :
															   QML_DATABASE_RESTING;
		problem = psprintf("more than %d databases are worked in: this one has a scheduler about "
						   "once a minute",
						   qml_databases_most());
	}
	else
		problem = "it is not known to the launcher yet";
	return problem;
}

/* The launcher looks less often than processes come and go. */
static void
correct_state(QmlDatabaseView *view)
{
	if (OidIsValid(view->database) && qml_slots_find_scheduler(view->database))
		view->state = QML_DATABASE_SERVED;
	else if (view->state == QML_DATABASE_SERVED)
		view->state = QML_DATABASE_STARTING;
}

/* Whether a database needs a scheduler, as far as the launcher knows. */
static bool
needs_scheduler(const QmlDatabaseView *view)
{
	switch (view->state)
	{
		case QML_DATABASE_STARTING:
		case QML_DATABASE_SERVED:
		case QML_DATABASE_WAITING:
		case QML_DATABASE_RESTING:
		case QML_DATABASE_FAILED:
			return true;
		case QML_DATABASE_FREE:
		case QML_DATABASE_COPY:
		case QML_DATABASE_UNKNOWN:
		case QML_DATABASE_REFUSED:
			break;
	}
	return false;
}

/* How this database is served. */
void
qml_service_find_own(QmlService *service)
{
	QmlDatabaseView *views = palloc(sizeof(QmlDatabaseView) * QML_MAX_DATABASES);
	int hidden = 0;
	int count;

	memset(service, 0, sizeof(*service));
	count = qml_shmem ?
				qml_databases_copy(views, &service->processes, &service->by_server, &hidden) :
				0;
	service->workers = qml_slots_count_workers(MyDatabaseId, InvalidOid);
	service->databases = hidden;
	for (int i = 0; i < count; i++)
	{
		QmlDatabaseView *view = &views[i];

		service->databases += needs_scheduler(view) ? 1 : 0;
		if (view->database != MyDatabaseId)
			continue;
		correct_state(view);
		service->is_known = true;
		service->view = *view;
		service->problem = describe_problem(view, service->workers,
											describe_limit(service->processes, service->by_server));
	}
	if (!service->is_known)
		service->problem = view_own(&service->view, hidden);
	pfree(views);
}

/* The rows of qml.background_databases(): this database, or all. */
void
qml_service_list(bool all, Tuplestorestate *store, TupleDesc desc)
{
	QmlDatabaseView *views = palloc(sizeof(QmlDatabaseView) * QML_MAX_DATABASES);
	bool own_was_there = false;
	bool by_server = false;
	int limit = 0;
	int hidden = 0;
	int count = qml_shmem ? qml_databases_copy(views, &limit, &by_server, &hidden) : 0;

	for (int i = 0; i < count; i++)
	{
		QmlDatabaseView *view = &views[i];
		bool own = view->database == MyDatabaseId;

		own_was_there = own_was_there || own;
		if (!own && !all)
			continue;
		correct_state(view);
		put_row(store, desc, view,
				describe_problem(view, qml_slots_count_workers(view->database, InvalidOid),
								 describe_limit(limit, by_server)));
	}
	if (!own_was_there)
	{
		QmlDatabaseView view;
		const char *problem = view_own(&view, hidden);

		put_row(store, desc, &view, problem);
	}
	pfree(views);
}
