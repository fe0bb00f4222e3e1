/*
 * hash_set.c
 *		Names by hash.
 *
 * For places where the name is too long to be kept, or must not be read.  The hash has so many
 * bits that no two names have the same.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "common/hash_set.h"

uint64
qml_hash_name(const char *name, int length)
{
	return hash_bytes_extended((const unsigned char *) name, length, 0);
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64 left = *(const uint64 *) a;
	uint64 right = *(const uint64 *) b;

	return left < right ? -1 : left > right;
}

/* Makes a set of an array. */
void
qml_hash_set_sort(uint64 *hashes, int count)
{
	qsort(hashes, count, sizeof(uint64), compare_hashes);
}

/* Whether a hash is in a set.  It reads nothing else and raises nothing, so locks may be held. */
bool
qml_hash_set_has(const uint64 *hashes, int count, uint64 hash)
{
	return count > 0 && bsearch(&hash, hashes, count, sizeof(uint64), compare_hashes) != NULL;
}
