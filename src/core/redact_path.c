/*
 * redact_path.c
 *		Paths to what is hidden in the documents of jobs.
 *
 * A path is written as one of a query (search_query.c):
 *
 *	payload					the whole document
 *	payload.a.b				member b of member a
 *	payload."a.b"			a member whose name has a dot; \" and \\ stand for themselves
 *	payload.*.b				b of all members
 *	metadata.a
 *
 * A path goes through arrays: it means each of their elements, as if they stood there instead.  So
 * payload.cards.number is hidden in {"cards": {"number": 1}} and in {"cards": [{"number": 1}]}.  A
 * step that is a number also means that element, counted from 0.  It is better to hide too much: who
 * writes the document may put a list where there was one value.
 *
 * What a path leads to is hidden whatever it is, with all that is in it.
 */
#include "core/redact_path.h"

#include <stdio.h>
#include <string.h>

/* The names of the documents. */
static const char *const documents[QML_REDACT_DOCUMENTS] = {"payload", "metadata"};

/* What is read. */
typedef struct Reader
{
	const char *at;
	const char *end;
	QmlRedactPath *path;
	size_t used; /* of its texts */
} Reader;

static bool
read_document(Reader *reader)
{
	for (int i = 0; i < QML_REDACT_DOCUMENTS; i++)
	{
		size_t length = strlen(documents[i]);

		if ((size_t) (reader->end - reader->at) < length ||
			memcmp(reader->at, documents[i], length) != 0 ||
			(reader->at + length < reader->end && reader->at[length] != '.'))
			continue;
		reader->path->document = (QmlRedactDocument) i;
		reader->at += length;
		return true;
	}
	return false;
}

/* Reads a step in quotes, with the quotes; false: it does not end. */
static bool
read_quoted(Reader *reader)
{
	for (reader->at++; reader->at < reader->end && *reader->at != '"'; reader->at++)
	{
		if (*reader->at == '\\' && reader->at + 1 < reader->end &&
			(reader->at[1] == '"' || reader->at[1] == '\\'))
			reader->at++;
		reader->path->texts[reader->used++] = *reader->at;
	}
	if (reader->at == reader->end)
		return false;
	reader->at++;
	return true;
}

/* Reads a step, behind its dot; returns why it is none, or NULL. */
static const char *
read_step(Reader *reader)
{
	QmlRedactPath *path = reader->path;
	size_t begin = reader->used;
	int step = path->nsteps;
	bool is_quoted = reader->at < reader->end && *reader->at == '"';

	if (step == QML_REDACT_MAX_STEPS)
		return "with at most 20 steps";
	if (is_quoted && !read_quoted(reader))
		return "with a second quote for each";
	while (!is_quoted && reader->at < reader->end && *reader->at != '.' && *reader->at != '"')
		path->texts[reader->used++] = *reader->at++;
	if (reader->at < reader->end && *reader->at != '.')
		return "with a dot between steps";
	if (!is_quoted && reader->used == begin)
		return "with a name in each step";
	path->begin[step] = (uint16_t) begin;
	path->length[step] = (uint16_t) (reader->used - begin);
	path->is_any[step] = !is_quoted && path->length[step] == 1 && path->texts[begin] == '*';
	path->nsteps++;
	return NULL;
}

/* Reads a path; returns how it should be written, or NULL: it was read. */
const char *
qml_redact_path_parse(const char *text, size_t length, QmlRedactPath *path)
{
	Reader reader = {.at = text, .end = text + length, .path = path};

	memset(path, 0, sizeof(*path));
	if (length > QML_REDACT_MAX_LENGTH)
		return "of at most 400 bytes";
	if (!read_document(&reader))
		return "that begin with payload or metadata, such as payload.card.number";
	while (reader.at < reader.end)
	{
		const char *problem;

		reader.at++; /* the dot */
		problem = read_step(&reader);
		if (problem)
			return problem;
	}
	return NULL;
}

static bool
is_step(const QmlRedactPath *path, int step, const char *key, size_t length)
{
	return path->is_any[step] || (path->length[step] == length &&
								  memcmp(path->texts + path->begin[step], key, length) == 0);
}

/* How far a path has been followed in a member of an object that it had been followed to. */
QmlRedactSteps
qml_redact_path_member(const QmlRedactPath *path, QmlRedactSteps taken, const char *key,
					   size_t length)
{
	QmlRedactSteps next = 0;

	for (int i = 0; i < path->nsteps; i++)
	{
		if ((taken & ((QmlRedactSteps) 1 << i)) && is_step(path, i, key, length))
			next |= (QmlRedactSteps) 1 << (i + 1);
	}
	return next;
}

/* The same in an element of an array. */
QmlRedactSteps
qml_redact_path_element(const QmlRedactPath *path, QmlRedactSteps taken, unsigned index)
{
	char number[16];
	int length = snprintf(number, sizeof(number), "%u", index);

	return taken | qml_redact_path_member(path, taken, number, (size_t) length);
}

/* Whether the path leads there. */
bool
qml_redact_path_is_end(const QmlRedactPath *path, QmlRedactSteps taken)
{
	return (taken & ((QmlRedactSteps) 1 << path->nsteps)) != 0;
}

/* Whether the text may be the number of an element. */
static bool
may_be_number(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] >= '0' && text[i] <= '9')
			return true;
	}
	return false;
}

/* How far a path may have been followed where a step of another one leads. */
static QmlRedactSteps
follow(const QmlRedactPath *path, QmlRedactSteps taken, const char *key)
{
	size_t length = strlen(key);
	QmlRedactSteps next = qml_redact_path_member(path, taken, key, length);

	if (!may_be_number(key, length))
		return next;
	/* The step may lead to an element, and be written in another way than here. */
	next |= taken;
	for (int i = 0; i < path->nsteps; i++)
	{
		if ((taken & ((QmlRedactSteps) 1 << i)) &&
			may_be_number(path->texts + path->begin[i], path->length[i]))
			next |= (QmlRedactSteps) 1 << (i + 1);
	}
	return next;
}

/*
 * Whether in some document the value that other steps lead to, a number leading into arrays, is
 * hidden, has hidden values in it, or is within one.
 */
bool
qml_redact_path_meets(const QmlRedactPath *path, const char *const *steps, int nsteps)
{
	QmlRedactSteps taken = QML_REDACT_ROOT;

	for (int i = 0; i < nsteps && !qml_redact_path_is_end(path, taken); i++)
	{
		taken = follow(path, taken, steps[i]);
		if (taken == 0)
			return false;
	}
	return true;
}
