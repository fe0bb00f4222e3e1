/*
 * check.c
 *		Tests of src/core/histogram.c: bins, quantiles against sorted durations, packing.
 *
 * The first argument is the seed of the random durations.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/histogram.h"

static int passed = 0;
static int failed = 0;

static void
check(bool good, const char *what, long long detail)
{
	if (good)
		passed++;
	else
	{
		failed++;
		printf("failed: %s (%lld)\n", what, detail);
	}
}

static void
check_bounds(void)
{
	check(qml_histogram_bounds[0] == 100, "the first bin ends with 100 us", 0);
	check(qml_histogram_bounds[QML_HISTOGRAM_BINS - 2] == INT64_C(160000000000),
		  "the last but one ends with 160,000 s", 0);
	for (int i = 0; i < QML_HISTOGRAM_BINS - 1; i++)
	{
		int64_t bound = qml_histogram_bounds[i];

		check(qml_histogram_bin(bound) == i, "a bound is in the bin that it ends", bound);
		check(qml_histogram_bin(bound + 1) == i + 1, "behind it, the next bin begins", bound);
		if (i > 0)
		{
			double ratio = (double) bound / (double) qml_histogram_bounds[i - 1];

			check(ratio > 1.55 && ratio < 1.61, "bins are spaced by their logarithms", bound);
		}
	}
	check(qml_histogram_bin(0) == 0, "0 is in the first bin", 0);
	check(qml_histogram_bin(INT64_MIN) == 0, "so is all that is below it", 0);
	check(qml_histogram_bin(INT64_MAX) == QML_HISTOGRAM_BINS - 1, "the last bin has no end", 0);
}

static uint64_t state;

static uint64_t
next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* From 0 to 1. */
static double
chance(void)
{
	return (double) (next_random() >> 11) / 9007199254740992.0;
}

static int
compare(const void *a, const void *b)
{
	int64_t one = *(const int64_t *) a;
	int64_t other = *(const int64_t *) b;

	return one < other ? -1 : one > other;
}

/* Every quantile is in the bin of the exact one. */
static void
check_quantiles(int count, double decades)
{
	static const double wanted[] = {0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
	int64_t *durations = malloc(sizeof(int64_t) * (size_t) count);
	uint64_t counts[QML_HISTOGRAM_BINS] = {0};
	int64_t before = 0;

	for (int i = 0; i < count; i++)
	{
		durations[i] = (int64_t) pow(10, chance() * decades);
		counts[qml_histogram_bin(durations[i])]++;
	}
	qsort(durations, (size_t) count, sizeof(int64_t), compare);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
	{
		int rank = (int) ceil(wanted[i] * count);
		int64_t exact = durations[rank > 0 ? rank - 1 : 0];
		int64_t found = qml_histogram_quantile(counts, wanted[i]);
		int bin = qml_histogram_bin(found);

		/* What is in the last bin is shown by its beginning, which is the end of the one before. */
		if (qml_histogram_bin(exact) == QML_HISTOGRAM_BINS - 1)
			check(bin == QML_HISTOGRAM_BINS - 2, "a quantile in the last bin", exact);
		else
			check(bin == qml_histogram_bin(exact), "a quantile is in the bin of the exact one",
				  exact);
		check(found >= before, "quantiles grow", found);
		before = found;
	}
	free(durations);
}

static void
check_packing(void)
{
	unsigned char packed[QML_HISTOGRAM_PACKED];
	uint64_t counts[QML_HISTOGRAM_BINS];
	uint64_t again[QML_HISTOGRAM_BINS];
	size_t size;

	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
		counts[i] = next_random() % 3 == 0 ? 0 : next_random() >> (next_random() % 64);
	size = qml_histogram_pack(counts, packed);
	memset(again, 0, sizeof(again));
	check(qml_histogram_unpack(packed, size, again), "what was packed is a histogram",
		  (long long) size);
	check(memcmp(counts, again, sizeof(counts)) == 0, "and the same", (long long) size);
	check(qml_histogram_unpack(packed, size, again), "it is added", (long long) size);
	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
		check(again[i] == 2 * counts[i], "to what is there", i);

	/* Whatever the bytes are, nothing behind the counts is written. */
	size = next_random() % sizeof(packed);
	for (size_t i = 0; i < size; i++)
		packed[i] = (unsigned char) next_random();
	(void) qml_histogram_unpack(packed, size, again);
	passed++;
}

static void
check_edges(void)
{
	uint64_t counts[QML_HISTOGRAM_BINS] = {0};
	unsigned char packed[QML_HISTOGRAM_PACKED];
	static const unsigned char bad_bin[] = {48, 1};
	static const unsigned char no_count[] = {3};
	static const unsigned char open_count[] = {3, 0x80};
	static const unsigned char twice[] = {3, 1, 3, 1};

	check(qml_histogram_quantile(counts, 0.5) == -1, "there is no quantile of nothing", 0);
	check(qml_histogram_pack(counts, packed) == 0, "nothing is packed into nothing", 0);
	check(qml_histogram_unpack(packed, 0, counts), "which is a histogram", 0);
	check(!qml_histogram_unpack(bad_bin, sizeof(bad_bin), counts), "a bin that there is not", 0);
	check(!qml_histogram_unpack(no_count, sizeof(no_count), counts), "a bin without a count", 0);
	check(!qml_histogram_unpack(open_count, sizeof(open_count), counts), "a count without an end",
		  0);
	check(!qml_histogram_unpack(twice, sizeof(twice), counts), "a bin twice", 0);
	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
		counts[i] = UINT64_MAX;
	check(qml_histogram_pack(counts, packed) == QML_HISTOGRAM_PACKED, "the largest one fits", 0);
}

int
main(int argc, char **argv)
{
	state = 88172645463325252ULL + (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) * 2654435761ULL;
	check_bounds();
	check_edges();
	for (int i = 0; i < 200; i++)
	{
		check_quantiles(1 + (int) (next_random() % 5000), 1 + chance() * 11.5);
		check_packing();
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
