/*
 * import.c
 *		Making schedules of the jobs of pg_cron.
 *
 * A job of pg_cron becomes a command (userfn/statement.c) and a schedule, both of the name
 * "pg_cron <id> <name of the job>".  The schedule is paused, and pg_cron goes on with its own
 * job, until the schedule is resumed: in that transaction the job is unscheduled, so that
 * the statement is run by one of the two at any time.
 *
 * The jobs are read with the rights of the caller, so that row security shows whose they are.
 * What resuming does is takeover.c.
 *
 * Both programs accept expressions that they read differently, so only those of a form that
 * they have in common are imported.  What is there already is compared with what would be made:
 * a handler or schedule that is not of this job, or of the job as it was, is told as a problem.
 *
 * Each job is imported in a subtransaction: one that cannot be is told, and stops no other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "common/spi.h"
#include "common/subxact.h"
#include "compat.h"
#include "errcodes.h"
#include "qml.h"
#include "schedule/import.h"
#include "schedule/pgcron.h"
#include "schedule/recurring.h"
#include "schedule/takeover.h"
#include "userfn/handler.h"
#include "userfn/registry.h"
#include "userfn/statement.h"

/* The longest timeout that there is: pg_cron has none. */
#define TIMEOUT "24 days"

#define INACTIVE_REASON "imported from pg_cron, where the job is switched off"
#define PAUSE_REASON	"imported from pg_cron, which runs the job until this schedule is resumed"

/* A row of cron.job; the texts are copies. */
typedef struct CronJob
{
	QmlImport import;
	QmlCronJob cron;
	bool here;	 /* it is meant for this server */
	bool active; /* not switched off */
} CronJob;

/* Whether the text is "n seconds", which pg_cron has since 1.5. */
static bool
is_seconds(const char *schedule, int *seconds)
{
	char unit[9];
	int end = 0;

	return sscanf(schedule, " %9d %8s %n", seconds, unit, &end) == 2 && end > 0 &&
		   schedule[end] == '\0' &&
		   (pg_strcasecmp(unit, "second") == 0 || pg_strcasecmp(unit, "seconds") == 0);
}

/* A setting of pg_cron; NULL: this version of it has none, whatever was set. */
static const char *
find_setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value && (GetConfigOptionFlags(name, true) & GUC_CUSTOM_PLACEHOLDER) == 0 ? value : NULL;
}

/* pg_cron's own setting, since 1.6; before that it counts in GMT. */
static const char *
find_timezone(void)
{
	const char *timezone = find_setting("cron.timezone");

	return timezone && *timezone ? timezone : "UTC";
}

/* A number, or the name of one in the fields 4 and 5, and the end of it; NULL: neither. */
static const char *
read_value(const char *text, int field, int *value)
{
	static const char names[2][12][4] = {
		{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"},
		{"sun", "mon", "tue", "wed", "thu", "fri", "sat"},
	};
	int length = (int) strspn(text, "0123456789");

	if (length > 0 && length <= 4)
	{
		*value = atoi(text);
		return text + length;
	}
	if (length > 0 || field < 4)
		return NULL;
	for (int i = 0; i < 12 && names[field - 4][i][0] != '\0'; i++)
	{
		if (pg_strncasecmp(text, names[field - 4][i], 3) == 0)
		{
			*value = field == 4 ? i + 1 : i;
			return text + 3;
		}
	}
	return NULL;
}

/*
 * Whether a field is a list of * and ranges, with or without a step, and single values: what
 * pg_cron and qml have in common.
 */
static bool
is_common(const char *text, int field)
{
	int first;
	int last;
	int step;

	for (;; text++)
	{
		bool range = *text == '*';

		if (range)
			text++;
		else if ((text = read_value(text, field, &first)) == NULL)
			return false;
		else if (*text == '-')
		{
			/* FRI-SUN: pg_cron takes SUN for 0, and then there is no such day. */
			text = read_value(text + 1, field, &last);
			if (text == NULL || last < first)
				return false;
			range = true;
		}
		if (range && *text == '/' && (text = read_value(text + 1, 1, &step)) == NULL)
			return false;
		if (*text != ',')
			return *text == '\0';
	}
}

pg_noreturn static void
raise_difference(const char *schedule, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_CRON),
			 errmsg("pg_cron and qml read the expression \"%s\" differently", schedule),
			 errdetail("%s", detail)));
}

/* The expression of a schedule that means what pg_cron's does, or an error. */
static char *
convert_schedule(const char *schedule)
{
	StringInfoData expression;
	char *fields[6];
	int count = 0;
	int seconds;
	char *state;

	if (is_seconds(schedule, &seconds))
		return psprintf("every %d seconds", seconds);
	for (char *field = strtok_r(pstrdup(schedule), " \t\r\n", &state);
		 field && count < (int) lengthof(fields); field = strtok_r(NULL, " \t\r\n", &state))
		fields[count++] = field;
	if (count == 1 && fields[0][0] == '@')
		return fields[0];
	if (count != 5)
		raise_difference(schedule, count > 5 ? "pg_cron ignores what follows the fifth field." :
											   "It has not five fields.");
	initStringInfo(&expression);
	for (int i = 0; i < 5; i++)
	{
		/* The last day of the month, in pg_cron since 1.6. */
		bool is_last = i == 2 && strcmp(fields[i], "$") == 0;

		if (!is_last && !is_common(fields[i], i + 1))
			raise_difference(schedule, psprintf("\"%s\" may mean something else.", fields[i]));
		appendStringInfo(&expression, "%s%s", i > 0 ? " " : "", is_last ? "L" : fields[i]);
	}
	if (fields[2][0] != '*' && fields[4][0] != '*')
	{
		const char *both = find_setting("cron.match_dom_and_dow");

		if (fields[2][0] == '$' || (both && strcmp(both, "on") == 0))
			raise_difference(schedule, "In pg_cron both days must match, in qml one of them.");
	}
	return expression.data;
}

static void *
read_job(uint64 row)
{
	CronJob *job = palloc0(sizeof(CronJob));
	SPITupleTable *table = SPI_tuptable;
	bool isnull;
	Datum name = qml_spi_value(table, row, 2, TEXTOID, &isnull);

	job->import.jobid = DatumGetInt64(qml_spi_value(table, row, 1, INT8OID, NULL));
	job->import.jobname = isnull ? NULL : TextDatumGetCString(name);
	job->cron.schedule = TextDatumGetCString(qml_spi_value(table, row, 3, TEXTOID, NULL));
	job->cron.command = TextDatumGetCString(qml_spi_value(table, row, 4, TEXTOID, NULL));
	job->cron.username = TextDatumGetCString(qml_spi_value(table, row, 5, TEXTOID, NULL));
	job->here = DatumGetBool(qml_spi_value(table, row, 6, BOOLOID, NULL));
	job->active = DatumGetBool(qml_spi_value(table, row, 7, BOOLOID, NULL));
	return job;
}

/* The jobs of this database that the caller sees: CronJob, by id. */
static List *
read_jobs(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *jobs;
	QmlSpi spi;

	qml_spi_begin(&spi, GetUserId());
	(void) qml_spi_execute("SELECT j.jobid, j.jobname::text, j.schedule, j.command, "
						   "j.username::text, "
						   "(j.nodename IN ('', 'localhost', '127.0.0.1', '::1') "
						   "OR j.nodename LIKE '/%') AND "
						   "j.nodeport::text = pg_catalog.current_setting('port'), j.active "
						   "FROM cron.job j WHERE j.database = pg_catalog.current_database() "
						   "ORDER BY j.jobid",
						   0, NULL, NULL, NULL, SPI_OK_SELECT);
	jobs = qml_spi_rows(context, read_job);
	qml_spi_end(&spi);
	return jobs;
}

/* As pg_cron runs it: as its user, one at a time, for as long as it takes. */
static Jsonb *
make_options(const CronJob *job)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json,
						   "{\"concurrency\": 1, \"timeout\": \"" TIMEOUT "\", \"run_as\": ");
	escape_json(&json, job->cron.username);
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/* The handler of the name of a job must be that of the job. */
static void
check_handler(const QmlHandler *handler, const CronJob *job)
{
	const char *difference = NULL;

	if (handler->command == NULL)
		difference = "It calls a function.";
	else if (strcmp(handler->command, job->cron.command) != 0)
		difference = "Its command is another one.";
	else if (handler->run_as != get_role_oid(job->cron.username, false))
		difference = "It runs as another role.";
	if (difference)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("handler \"%s\" exists and differs", handler->method),
				 errdetail("%s", difference)));
}

/* Adds what is to be told of a job that is imported. */
static void
add_remark(CronJob *job, char *remark)
{
	job->import.problem = job->import.problem ? psprintf("%s; %s", job->import.problem, remark) :
												remark;
}

/*
 * The schedule of the name of a job must be that of the job as it is, or resuming it would not
 * take the job over.  What was changed in the schedule itself is told.
 */
static void
check_schedule(CronJob *job, const QmlRecurring *wanted, const QmlRecurring *there, Oid created_by,
			   Datum imported)
{
	const struct
	{
		const char *name;
		const char *wanted;
		const char *there;
	} columns[] = {
		{"cron", wanted->cron, there->cron},
		{"timezone", wanted->timezone, there->timezone},
		{"method", wanted->method, there->method},
	};
	Oid role = get_role_oid(job->cron.username, false);
	char *problem = NULL;
	char *list = NULL;
	char *owner = GetUserNameFromId(created_by, true);

	if (owner == NULL)
		owner = psprintf("%u", created_by);
	if (imported == (Datum) 0)
		problem = psprintf("It was not imported, and belongs to the role \"%s\".", owner);
	else if ((list = qml_takeover_difference(imported, &job->cron)) != NULL)
		problem = psprintf("The job was changed since it was imported: %s.", list);
	else if (!qml_may_become(created_by, role))
		problem = psprintf("Its owner, the role \"%s\", may not become the role \"%s\" of the job.",
						   owner, job->cron.username);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("recurring job \"%s\" exists and differs", there->id),
				 errdetail("%s", problem)));
	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		if (strcmp(columns[i].wanted, columns[i].there) != 0)
			list = list ? psprintf("%s, %s", list, columns[i].name) :
						  unconstify(char *, columns[i].name);
	}
	if (list)
		add_remark(job, psprintf("the schedule exists and differs from the job: %s", list));
}

/* What of a job is not there yet; it stays as it is otherwise.  For qml_subxact_try(). */
static void
import_job(void *arg)
{
	CronJob *job = arg;
	char *name = qml_takeover_name(job->import.jobid, job->import.jobname);
	QmlRecurring wanted = {
		.id = name,
		.cron = convert_schedule(job->cron.schedule),
		.method = name,
		.queue = QML_DEFAULT_QUEUE,
		.timezone = find_timezone(),
		.misfire = "skip",
		.overlap = "queue_one",
		.payload = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")),
		.max_retries = -1,
		.timeout_ms = -1,
	};
	const QmlHandler *handler = qml_handler_find(name);
	QmlRecurring there;
	Oid created_by;
	Datum imported;

	if (handler)
		check_handler(handler, job);
	else
	{
		if (strlen(job->cron.command) > QML_MAX_COMMAND)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the command is too large"),
					 errdetail("It has %zu bytes; at most %d are allowed.",
							   strlen(job->cron.command), QML_MAX_COMMAND)));
		qml_registry_add_command(name, job->cron.command, make_options(job));
	}
	if (qml_recurring_find(name, &there, &created_by, &imported))
		check_schedule(job, &wanted, &there, created_by, imported);
	else
		qml_recurring_import(&wanted, qml_takeover_keep(&job->cron),
							 CStringGetTextDatum(job->active ? PAUSE_REASON : INACTIVE_REASON));
	if (!job->active)
		add_remark(job, "pg_cron has switched the job off; resuming the schedule would start it");
	/* There it is the first day of a month that does not exist. */
	if (strcmp(wanted.cron, "@yearly") == 0 || strcmp(wanted.cron, "@annually") == 0)
		add_remark(job, psprintf("pg_cron may never run %s, but qml does", wanted.cron));
	job->import.schedule = name;
}

/* Why a job is left to pg_cron without a try; NULL: it is not. */
static char *
refuse_job(const CronJob *job)
{
	if (job->import.jobname && qml_pgcron_is_own(job->import.jobname))
		return "It is a job of qml_pg_cron_schedule().  The background processes of qml do its work; "
			   "qml_pg_cron_unschedule() removes it.";
	if (!job->here)
		return "Its nodename and nodeport are not those of this server.";
	return NULL;
}

/*
 * Imports the jobs of pg_cron in this database that the current user, who has the capability
 * "admin", may read; what became of each, QmlImport.
 */
List *
qml_import_jobs(void)
{
	List *imports = NIL;
	List *jobs;
	ListCell *lc;

	(void) qml_pgcron_require_table();
	jobs = read_jobs();
	foreach(lc, jobs)
	{
		CronJob *job = lfirst(lc);
		QmlFailure failure;

		CHECK_FOR_INTERRUPTS();
		job->import.problem = refuse_job(job);
		if (job->import.problem == NULL &&
			!qml_subxact_try(import_job, job, qml_subxact_ends_call, &failure))
		{
			job->import.problem = failure.detail ?
									  psprintf("%s: %s", failure.message, failure.detail) :
									  failure.message;
			job->import.schedule = NULL;
		}
		imports = lappend(imports, &job->import);
	}
	return imports;
}
