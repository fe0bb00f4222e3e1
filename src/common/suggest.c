/*
 * suggest.c
 *		Which name was probably meant by one that is not known.
 *
 * For hints of errors.  A name is like another one if few characters have to be inserted,
 * deleted or replaced: one in a name of up to three characters, two in one of up to eight,
 * three in a longer one.  Upper and lower case are the same.
 *
 * Who calls this considers only names that the current user may see.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/varlena.h"

#include "common/suggest.h"

/* The longest name that is compared, in bytes. */
#define MAX_LENGTH 255

/* ASCII letters in lower case. */
static char *
fold(const char *name)
{
	char *folded = pstrdup(name);

	for (char *p = folded; *p; p++)
	{
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
	}
	return folded;
}

/* Begins a search for what was meant. */
void
qml_suggest_begin(QmlSuggestion *suggestion, const char *wanted)
{
	size_t length = strlen(wanted);

	suggestion->best = NULL;
	suggestion->wanted = length > 1 && length <= MAX_LENGTH ? fold(wanted) : NULL;
	suggestion->limit = length <= 3 ? 1 : length <= 8 ? 2 : 3;
}

/* Considers a name; the first of the nearest ones is chosen. */
void
qml_suggest_consider(QmlSuggestion *suggestion, const char *name)
{
	qml_suggest_consider_as(suggestion, name, name);
}

/* The same for a name that is shown in another form. */
void
qml_suggest_consider_as(QmlSuggestion *suggestion, const char *name, const char *shown)
{
	size_t length = strlen(name);
	char *folded;
	int distance;

	if (suggestion->wanted == NULL || length == 0 || length > MAX_LENGTH)
		return;
	folded = fold(name);
	/* More than the limit, if it is more. */
	distance = varstr_levenshtein_less_equal(suggestion->wanted, (int) strlen(suggestion->wanted),
											 folded, (int) length, 1, 1, 1, suggestion->limit,
											 true);
	pfree(folded);
	if (distance > suggestion->limit)
		return;
	suggestion->best = pstrdup(shown);
	/* From now on a nearer one. */
	suggestion->limit = distance - 1;
	if (distance == 0)
		suggestion->wanted = NULL;
}

/* A question and a blank, to begin a hint with; empty if no name is like it. */
const char *
qml_suggest_question(const QmlSuggestion *suggestion)
{
	return suggestion->best ? psprintf("Did you mean \"%s\"? ", suggestion->best) : "";
}
