/*
 * method_set.c
 *		The methods that a worker names when it fetches or waits.
 *
 * Sorted, so that a job is looked up in few comparisons however many methods there are, and
 * so that equal sets have equal hashes.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/qunique.h"

#include "common/hash_set.h"
#include "compat.h"
#include "jobs/method_set.h"

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* A set of at least one method; it keeps the strings, and lives where they do. */
QmlMethodSet *
qml_method_set_make(char **methods, int count)
{
	QmlMethodSet *set = palloc(sizeof(QmlMethodSet));

	Assert(count > 0);
	qsort(methods, count, sizeof(char *), compare_names);
	set->count = qunique(methods, count, sizeof(char *), compare_names);
	set->methods = methods;
	set->hash = 0;
	set->hashes = palloc(sizeof(uint64) * set->count);
	for (int i = 0; i < set->count; i++)
	{
		set->hashes[i] = qml_hash_name(methods[i], strlen(methods[i]));
		set->hash = hash_combine64(set->hash, set->hashes[i]);
	}
	qml_hash_set_sort(set->hashes, set->count);
	return set;
}

/* Whether a method with this hash is in the set. */
bool
qml_method_set_has_hash(const QmlMethodSet *set, uint64 hash)
{
	return qml_hash_set_has(set->hashes, set->count, hash);
}

/* Compares a string with a text that does not end with a zero. */
static int
compare_to_text(const char *name, const char *data, int length)
{
	int order = strncmp(name, data, length);

	return order == 0 && name[length] != '\0' ? 1 : order;
}

/* Whether a method, a text, is in the set. */
bool
qml_method_set_has(const QmlMethodSet *set, Datum method)
{
	text *value = DatumGetTextPP(method);
	int low = 0;
	int high = set->count;
	bool found = false;

	while (low < high && !found)
	{
		int middle = (low + high) / 2;
		int order = compare_to_text(set->methods[middle], VARDATA_ANY(value),
									VARSIZE_ANY_EXHDR(value));

		found = order == 0;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if ((Pointer) value != DatumGetPointer(method))
		pfree(value);
	return found;
}
