/*
 * redact.c
 *		What is hidden of jobs from those who only look at them.
 *
 * The option "redact" of a queue, or of the handler of a method, names paths in the payload and
 * the metadata of jobs.  Who sees a job only because of the capability "monitor" sees *** there.
 * Result, progress, errors and reason are hidden as a whole from him, as handlers quote what they
 * got.  Who works the queue or administers it, and who made the job, sees everything: see acl.c.
 *
 * Whatever shows a job to a role asks here what it may show, and takes the values from here; so do
 * messages that are written to the server's log, which have no reader of whom it is known what he may
 * see.  That there is a value is not hidden, nor how long a job took, nor how it ended.
 *
 * What holds is what the queue and the handler say now, also for jobs that have finished.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "common/args.h"
#include "model/redact.h"

/* From a higher layer: handlers have the option, too. */
static const QmlRedact *(*redact_of_method)(Datum method);
static bool (*redact_any_method)(void);

void
qml_redact_init(const QmlRedact *(*of_method)(Datum method), bool (*any_method)(void))
{
	redact_of_method = of_method;
	redact_any_method = any_method;
}

/* ----- who sees what ----- */

/* What is hidden because of the queue, which may be NULL; NULL: nothing. */
static const QmlRedact *
redact_of_queue(const QmlQueue *queue)
{
	return queue ? queue->options.redact : NULL;
}

/*
 * Whether anything is hidden in jobs of the queue, which may be NULL, and the method.  A job of qml's
 * own queue tells of a job of any other one.
 */
bool
qml_redact_has(const QmlQueue *queue, Datum method)
{
	if (queue && queue->own)
		return qml_redact_exists();
	return redact_of_queue(queue) != NULL || redact_of_method(method) != NULL;
}

/* Whether anything is hidden in any jobs. */
bool
qml_redact_exists(void)
{
	ListCell *lc;

	foreach(lc, qml_queue_all())
	{
		if (redact_of_queue(lfirst(lc)))
			return true;
	}
	return redact_any_method();
}

/*
 * What is left of an access to jobs of a queue: its name, and what is known of it or NULL, as a
 * schedule can name one that is not there.
 */
QmlAccess
qml_redact_limit(QmlAccess access, const QmlQueue *queue, const char *name, Oid created_by,
				 Datum method)
{
	if (access != QML_ACCESS_FULL || qml_args_is_reserved_queue(name) ||
		qml_acl_allow(QML_CAN_WORK, name) || !qml_redact_has(queue, method) ||
		qml_acl_own_job(name, created_by))
		return access;
	return QML_ACCESS_REDACTED;
}

/*
 * What the current user sees of a job of this queue, method and role; nothing if there is no row of
 * the queue.
 */
QmlAccess
qml_redact_access(int queue_id, Datum method, Oid created_by)
{
	const QmlQueue *queue = qml_queue_by_id(queue_id);

	if (queue == NULL)
		return QML_ACCESS_NONE;
	return qml_redact_limit(qml_acl_access(queue->name, created_by), queue, queue->name, created_by,
							method);
}

/*
 * Whether the current user sees the contents of the jobs of all queues but qml's own, and so also
 * what quotes one of them.
 */
bool
qml_redact_allow_contents(void)
{
	return qml_acl_allow(QML_CAN_WORK, NULL) ||
		   (qml_acl_allow(QML_CAN_MONITOR, NULL) && !qml_redact_exists());
}

/* ----- documents ----- */

/* The paths that lead into a document, and how far each was followed. */
typedef struct Place
{
	int npaths;
	const QmlRedactPath *paths[2 * QML_MAX_REDACT_PATHS];
	QmlRedactSteps taken[2 * QML_MAX_REDACT_PATHS];
} Place;

static void
add_paths(Place *place, const QmlRedact *redact, QmlRedactDocument which)
{
	for (int i = 0; redact && i < redact->npaths; i++)
	{
		if (redact->paths[i].document != which)
			continue;
		place->paths[place->npaths] = &redact->paths[i];
		place->taken[place->npaths++] = QML_REDACT_ROOT;
	}
}

static bool
is_end(const Place *place)
{
	for (int i = 0; i < place->npaths; i++)
	{
		if (qml_redact_path_is_end(place->paths[i], place->taken[i]))
			return true;
	}
	return false;
}

/* Adds a path to a place if any step of it has been taken. */
static void
add_followed(Place *place, const QmlRedactPath *path, QmlRedactSteps taken)
{
	if (taken == 0)
		return;
	place->paths[place->npaths] = path;
	place->taken[place->npaths++] = taken;
}

static void
enter_member(const Place *from, const JsonbValue *key, Place *place)
{
	place->npaths = 0;
	for (int i = 0; i < from->npaths; i++)
		add_followed(place, from->paths[i],
					 qml_redact_path_member(from->paths[i], from->taken[i], key->val.string.val,
											key->val.string.len));
}

static void
enter_element(const Place *from, unsigned index, Place *place)
{
	place->npaths = 0;
	for (int i = 0; i < from->npaths; i++)
		add_followed(place, from->paths[i],
					 qml_redact_path_element(from->paths[i], from->taken[i], index));
}

static JsonbValue
hidden_value(void)
{
	JsonbValue value = {.type = jbvString};

	value.val.string.val = (char *) QML_REDACTED;
	value.val.string.len = strlen(QML_REDACTED);
	return value;
}

static JsonbValue *push_container(JsonbParseState **state, JsonbContainer *container,
								  const Place *place);

/* Pushes a member or an element that is at a place. */
static void
push_value(JsonbParseState **state, JsonbIteratorToken token, JsonbValue *value, const Place *place)
{
	JsonbValue hidden = hidden_value();

	if (is_end(place))
		(void) pushJsonbValue(state, token, &hidden);
	else if (value->type == jbvBinary && place->npaths > 0)
		(void) push_container(state, value->val.binary.data, place);
	else
		(void) pushJsonbValue(state, token, value);
}

/* Pushes an object or an array without what is hidden in it. */
static JsonbValue *
push_container(JsonbParseState **state, JsonbContainer *container, const Place *place)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	unsigned index = 0;
	JsonbValue value;
	Place *inner = palloc(sizeof(Place));

	check_stack_depth();
	(void) pushJsonbValue(state, JsonbIteratorNext(&it, &value, true), NULL);
	while ((token = JsonbIteratorNext(&it, &value, true)) == WJB_KEY || token == WJB_ELEM)
	{
		if (token == WJB_KEY)
		{
			enter_member(place, &value, inner);
			(void) pushJsonbValue(state, WJB_KEY, &value);
			(void) JsonbIteratorNext(&it, &value, true);
			push_value(state, WJB_VALUE, &value, inner);
		}
		else
		{
			enter_element(place, index++, inner);
			push_value(state, WJB_ELEM, &value, inner);
		}
	}
	pfree(inner);
	return pushJsonbValue(state, token, NULL);
}

static Datum
hidden_document(void)
{
	JsonbValue hidden = hidden_value();

	return JsonbPGetDatum(JsonbValueToJsonb(&hidden));
}

/*
 * The payload or the metadata of a job of the queue, which may be NULL, and the method, without
 * what is hidden; 0 stays 0.
 */
Datum
qml_redact_document(const QmlQueue *queue, Datum method, QmlRedactDocument which, Datum document)
{
	JsonbParseState *state = NULL;
	Place place = {.npaths = 0};
	Jsonb *given;

	if (document == (Datum) 0)
		return document;
	/* Reading it may make caches be read again, so it comes first. */
	given = DatumGetJsonbP(document);
	add_paths(&place, redact_of_method(method), which);
	add_paths(&place, redact_of_queue(queue), which);
	if (is_end(&place))
		return hidden_document();
	if (place.npaths == 0 || JB_ROOT_IS_SCALAR(given))
		return JsonbPGetDatum(given);
	return JsonbPGetDatum(JsonbValueToJsonb(push_container(&state, &given->root, &place)));
}

/* An array with as many errors as are given, but without what they say. */
static Datum
hide_errors(Datum errors)
{
	Jsonb *given = DatumGetJsonbP(errors);
	JsonbValue hidden = hidden_value();
	JsonbValue key = {.type = jbvString, .val.string = {.len = 5, .val = "error"}};
	JsonbParseState *state = NULL;

	/* Somebody may have edited the row. */
	if (!JB_ROOT_IS_ARRAY(given) || JB_ROOT_IS_SCALAR(given))
		return hidden_document();
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < (int) JB_ROOT_COUNT(given); i++)
	{
		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, &hidden);
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}

/*
 * What is shown of a column of a job to who has QML_ACCESS_REDACTED; 0: NULL.  Of a column that is
 * not known here nothing is shown.
 */
Datum
qml_redact_value(const QmlQueue *queue, Datum method, const char *column, Datum value)
{
	if (value == (Datum) 0)
		return value;
	if (strcmp(column, "payload") == 0)
		return qml_redact_document(queue, method, QML_REDACT_PAYLOAD, value);
	if (strcmp(column, "metadata") == 0)
		return qml_redact_document(queue, method, QML_REDACT_METADATA, value);
	if (strcmp(column, "errors") == 0)
		return hide_errors(value);
	if (strcmp(column, "result") == 0 || strcmp(column, "progress") == 0)
		return hidden_document();
	if (strcmp(column, "error") == 0 || strcmp(column, "reason") == 0)
		return CStringGetTextDatum(QML_REDACTED);
	return (Datum) 0;
}

/*
 * What the current user sees of a column of a job that is contents, with this access to the job; 0:
 * nothing.  Raises 42501 for one without any capability.
 */
Datum
qml_redact_show(QmlAccess access, const QmlQueue *queue, Datum method, const char *column,
				Datum value)
{
	if (access == QML_ACCESS_FULL)
		return value;
	if (access == QML_ACCESS_REDACTED)
		return qml_redact_value(queue, method, column, value);
	qml_acl_require_one(QML_MAY_ANY, NULL);
	return (Datum) 0;
}
