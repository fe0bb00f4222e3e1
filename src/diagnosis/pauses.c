/*
 * pauses.c
 *		What is paused, by whom, since when and why.
 *
 * Whether something is paused is known by the caches that claims go by; the rest is read from the
 * row.  A pause that was written by hand has nothing but its mark.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/spi.h"
#include "diagnosis/names.h"
#include "diagnosis/pauses.h"
#include "model/acl.h"
#include "model/catalog.h"

/* What a row says of a pause, or nothing that was not recorded: a part of a sentence. */
static char *
read_row(MemoryContext context)
{
	MemoryContext oldcontext;
	bool no_time;
	bool no_role;
	bool no_reason;
	Datum at = qml_spi_value(SPI_tuptable, 0, 1, TIMESTAMPTZOID, &no_time);
	Datum by = qml_spi_value(SPI_tuptable, 0, 2, TEXTOID, &no_role);
	Datum reason = qml_spi_value(SPI_tuptable, 0, 3, TEXTOID, &no_reason);
	char *words;

	oldcontext = MemoryContextSwitchTo(context);
	words = psprintf("%s%s%s",
					 no_time ? "" :
							   psprintf(" since %s", qml_finding_time(DatumGetTimestampTz(at))),
					 no_role ? "" : psprintf(" by role \"%s\"", TextDatumGetCString(by)),
					 no_reason ? "" : psprintf(": %s", TextDatumGetCString(reason)));
	MemoryContextSwitchTo(oldcontext);
	return words;
}

/*
 * Since when, by whom and why a queue is paused, or (NULL) all are: the end of a sentence.  It may
 * have been resumed just now.
 */
char *
qml_pauses_describe(const QmlQueue *queue)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT4OID;
	Datum id = Int32GetDatum(queue ? queue->id : 0);
	char *text = "";
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	if (qml_spi_execute_latest(
			queue ? "SELECT q.paused_at, q.paused_by, q.pause_reason FROM qml.queue_data q "
					"WHERE q.id = $1 AND q.paused" :
					"SELECT p.paused_at, p.paused_by, p.pause_reason FROM qml.pause_data p",
			queue ? 1 : 0, &type, &id, NULL, SPI_OK_SELECT) > 0)
		text = read_row(context);
	qml_spi_end(&spi);
	return text;
}

void
qml_pauses_check_all(QmlFinding *finding)
{
	if (qml_catalog()->paused)
		qml_finding_fail(finding, qml_finding_call("qml_resume_all", ""), "all queues are paused%s",
						 qml_pauses_describe(NULL));
	else
		qml_finding_pass(finding, "not all queues are paused");
}

void
qml_pauses_check_queues(QmlFinding *finding)
{
	QmlNameList paused;
	ListCell *lc;

	qml_names_init(&paused);
	foreach(lc, qml_queue_all())
	{
		const QmlQueue *queue = lfirst(lc);
		const char *pause;

		if (!queue->paused || queue->dropped || !qml_acl_see_queue(queue->name))
			continue;
		pause = qml_names_is_full(&paused) ? "" : qml_pauses_describe(queue);
		qml_names_add(&paused, queue->name, *pause == '\0' ? NULL : pause + 1);
	}
	if (paused.count > 0)
		qml_finding_fail(finding,
						 psprintf("SELECT %s(name) FROM qml.queue WHERE paused;",
								  qml_acl_qualify("qml_resume_queue")),
						 "%s paused: %s", qml_finding_count(paused.count, "queue is", "queues are"),
						 qml_names_text(&paused));
	else
		qml_finding_pass(finding, "no queue is paused");
}
