/*
 * new_queue.c
 *		What is said of a queue that a caller names, and that is not there.
 *
 * A queue comes into being by being named, where jobs are enqueued or a schedule is defined.
 * A name that was misspelled, or was meant for another argument, would make one that nobody
 * works.  So the caller is told, with what the name may have been meant for; the setting
 * qml.new_queues makes it an error, or says nothing.  Where a queue that is missing is named and
 * not made, as in a grant, the caller is told all the same.
 *
 * This costs a queue that is made some microseconds, however many there are: names are compared
 * with their neighbours in the index only.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "common/guc.h"
#include "common/spi.h"
#include "common/suggest.h"
#include "compat.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/new_queue.h"

/* Nobody has to name that one. */
static bool
is_default(const char *name)
{
	return strcmp(name, QML_DEFAULT_QUEUE) == 0;
}

/* Whether a name reads like an interval, a time, a number or a document. */
static bool
is_like_value(const char *name)
{
	Datum value;

	if (*name == '{' || *name == '[')
		return true;
	/* The input functions also take some words. */
	if (strchr("0123456789+-.@", *name) == NULL)
		return false;
	return qml_input_text(interval_in, pstrdup(name), &value) ||
		   qml_input_text(timestamptz_in, pstrdup(name), &value);
}

/* The queue that may have been meant; NULL: none is near. */
static const char *
find_near(const char *name)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	MemoryContext context = CurrentMemoryContext;
	QmlSuggestion meant;
	QmlSpi spi;
	List *names;
	ListCell *lc;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest(
		"(SELECT q.name FROM qml.queue_data q WHERE q.name < $1 AND NOT q.dropped "
		"AND NOT pg_catalog.starts_with(q.name, '" QML_RESERVED_QUEUES "') "
		"ORDER BY q.name DESC LIMIT 8) UNION ALL "
		"(SELECT q.name FROM qml.queue_data q WHERE q.name > $1 AND NOT q.dropped "
		"AND NOT pg_catalog.starts_with(q.name, '" QML_RESERVED_QUEUES "') "
		"ORDER BY q.name LIMIT 8)",
		1, &type, &value, NULL, SPI_OK_SELECT);
	names = qml_spi_strings(context);
	qml_spi_end(&spi);

	/* Names of queues are not for everybody. */
	qml_suggest_begin(&meant, name);
	foreach(lc, names)
	{
		if (qml_acl_see_queue(lfirst(lc)))
			qml_suggest_consider(&meant, lfirst(lc));
	}
	return meant.best;
}

/* What the name may have been meant for, as a hint; otherwise: what else helps, or NULL. */
static char *
make_hint(const char *name, const char *otherwise)
{
	const char *near;

	if (is_like_value(name))
		return pstrdup(
			_("Was it meant for another argument? Write its name, such as delay => '1 hour'."));
	near = find_near(name);
	if (near)
		return psprintf(_("Did you mean queue \"%s\"?"), near);
	return otherwise ? pstrdup(otherwise) : NULL;
}

/* Before a queue is made: raises 42704 if only qml_create_queue() makes queues. */
void
qml_new_queue_allow(const char *name)
{
	char *hint;

	if (qml_new_queues != QML_NEW_QUEUES_ERROR || is_default(name))
		return;
	hint = make_hint(name, _("Create it with qml_create_queue()."));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" does not exist", name),
			 errdetail("The setting qml.new_queues allows only qml_create_queue() to make queues."),
			 errhint("%s", hint)));
}

/* A queue was made because it was named. */
void
qml_new_queue_tell(const char *name)
{
	char *hint;

	if (qml_new_queues != QML_NEW_QUEUES_NOTICE || is_default(name))
		return;
	hint = make_hint(name, NULL);
	ereport(NOTICE,
			(errmsg("queue \"%s\" did not exist, and was created", name),
			 hint ? errhint("%s", hint) : 0));
}

/* A queue was named that is not there, and may be made later. */
void
qml_new_queue_tell_missing(const char *name)
{
	char *hint;

	if (qml_new_queues == QML_NEW_QUEUES_QUIET || is_default(name))
		return;
	hint = make_hint(name, NULL);
	ereport(NOTICE,
			(errmsg("queue \"%s\" does not exist yet", name), hint ? errhint("%s", hint) : 0));
}
