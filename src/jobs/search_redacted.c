/*
 * search_redacted.c
 *		Queries that ask for what is hidden from the current user.
 *
 * A value that is shown as *** (model/redact.c) could be guessed by searching for it.  The search
 * compares with what is shown, so nothing is told by its answer; but an answer without the jobs that
 * one looks for would mislead.  So a query is refused that asks for a path, or for errors, that are
 * hidden from the current user in some job that the query can lead to, unless it leaves out
 * their queue or method.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "jobs/search_redacted.h"
#include "model/redact.h"
#include "userfn/handler.h"

static bool
has_value(const QmlSearchQuery *query, const QmlSearchTerm *term, const char *text)
{
	for (int i = 0; i < term->nvalues; i++)
	{
		const char *value = query->values[term->first_value + i].text;

		if (value && strcmp(value, text) == 0)
			return true;
	}
	return false;
}

/* Whether jobs of this queue, or of this method, can match. */
static bool
can_match(const QmlSearchQuery *query, QmlSearchField field, const char *name)
{
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];

		if (term->field == field && has_value(query, term, name) == term->negated)
			return false;
	}
	return true;
}

/* Where something is hidden, all errors are. */
static bool
is_of_errors(QmlSearchField field)
{
	return field == QML_SEARCH_ERROR || field == QML_SEARCH_ERROR_TYPE ||
		   field == QML_SEARCH_FINGERPRINT;
}

/* Whether a term asks for something that is hidden. */
static bool
asks_for(const QmlSearchQuery *query, const QmlSearchTerm *term, const QmlRedact *redact)
{
	QmlRedactDocument document = term->field == QML_SEARCH_PAYLOAD ? QML_REDACT_PAYLOAD :
																	 QML_REDACT_METADATA;

	if (is_of_errors(term->field))
		return true;
	if (term->field != QML_SEARCH_PAYLOAD && term->field != QML_SEARCH_METADATA)
		return false;
	for (int i = 0; i < redact->npaths; i++)
	{
		if (redact->paths[i].document == document &&
			qml_redact_path_meets(&redact->paths[i], query->steps + term->first_step, term->nsteps))
			return true;
	}
	return false;
}

/* The first such term; NULL: none. */
static const QmlSearchTerm *
find_term(const QmlSearchQuery *query, const QmlRedact *redact)
{
	for (int i = 0; i < query->nterms; i++)
	{
		if (asks_for(query, &query->terms[i], redact))
			return &query->terms[i];
	}
	return NULL;
}

static bool
has_such_terms(const QmlSearchQuery *query)
{
	for (int i = 0; i < query->nterms; i++)
	{
		QmlSearchField field = query->terms[i].field;

		if (is_of_errors(field) || field == QML_SEARCH_PAYLOAD || field == QML_SEARCH_METADATA)
			return true;
	}
	return false;
}

/* The field of a term with its path, as in a query. */
static char *
show_field(const QmlSearchQuery *query, const QmlSearchTerm *term)
{
	StringInfoData shown;

	initStringInfo(&shown);
	appendStringInfoString(&shown, qml_search_field_name(term->field));
	for (int i = 0; i < term->nsteps; i++)
		appendStringInfo(&shown, ".%s", query->steps[term->first_step + i]);
	return shown.data;
}

/* A term that leaves out a name. */
static char *
leave_out(const char *field, const char *name)
{
	StringInfoData term;

	initStringInfo(&term);
	appendStringInfo(&term, "-%s:\"", field);
	for (; *name; name++)
	{
		if (*name == '"' || *name == '\\')
			appendStringInfoChar(&term, '\\');
		appendStringInfoChar(&term, *name);
	}
	appendStringInfoChar(&term, '"');
	return term.data;
}

pg_noreturn static void
refuse(const QmlSearchQuery *query, const QmlSearchTerm *term, const char *field, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to search by \"%s\"", show_field(query, term)),
			 errdetail("It is hidden from you in jobs of %s \"%s\".", field, name),
			 errhint("Leave these jobs out: add %s to the query.", leave_out(field, name))));
}

/* Whether the current user sees jobs of the queue as one who only monitors it. */
static bool
only_monitors(const char *queue)
{
	return qml_acl_allow(QML_CAN_MONITOR, queue) && !qml_acl_allow(QML_CAN_WORK, queue);
}

/* The same of some queue that the query can lead to; also if it may be so of one that is made later. */
static bool
only_monitors_some(const QmlSearchQuery *query)
{
	List *monitored;
	ListCell *lc;

	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];
		bool some = false;

		if (term->field != QML_SEARCH_QUEUE || term->negated)
			continue;
		for (int j = 0; j < term->nvalues && !some; j++)
			some = only_monitors(query->values[term->first_value + j].text);
		if (!some)
			return false;
	}
	if (qml_acl_allow(QML_CAN_WORK, NULL))
		return false;
	if (qml_acl_allow(QML_CAN_MONITOR, NULL))
		return true;
	monitored = qml_acl_queues(QML_CAN_MONITOR);
	foreach(lc, monitored)
	{
		if (only_monitors(lfirst(lc)))
			return true;
	}
	return false;
}

/* Of the queues whose option hides something from the current user, the first by name. */
static void
check_queues(const QmlSearchQuery *query)
{
	const QmlSearchTerm *refused = NULL;
	const char *first = NULL;
	ListCell *lc;

	foreach(lc, qml_queue_all())
	{
		const QmlQueue *queue = lfirst(lc);
		const QmlSearchTerm *term;

		if (queue->options.redact == NULL || (first && strcmp(queue->name, first) > 0) ||
			!can_match(query, QML_SEARCH_QUEUE, queue->name) || !only_monitors(queue->name))
			continue;
		term = find_term(query, queue->options.redact);
		if (term == NULL)
			continue;
		refused = term;
		first = queue->name;
	}
	if (refused)
		refuse(query, refused, "queue", first);
}

/* The same of methods. */
static void
check_methods(const QmlSearchQuery *query)
{
	ListCell *lc;

	if (!only_monitors_some(query))
		return;
	foreach(lc, qml_handler_all())
	{
		const QmlHandler *handler = lfirst(lc);
		const QmlRedact *redact = handler->options.common.redact;
		const QmlSearchTerm *term = NULL;

		if (redact && can_match(query, QML_SEARCH_METHOD, handler->method))
			term = find_term(query, redact);
		if (term)
			refuse(query, term, "method", handler->method);
	}
}

/* Raises 42501 if a query asks for what is hidden from the current user. */
void
qml_search_check_redacted(const QmlSearchCompiled *compiled)
{
	const QmlSearchQuery *query = &compiled->query;

	if (qml_acl_is_owner() || !has_such_terms(query))
		return;
	check_queues(query);
	check_methods(query);
}
