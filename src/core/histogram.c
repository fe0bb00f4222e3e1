/*
 * histogram.c
 *		How often durations occur: counts in bins that are spaced by their logarithms.
 *
 * The bounds of the bins are preferred numbers, five a decade: 1, 1.6, 2.5, 4, 6.3, 10.  The first
 * bin has what took up to 100 microseconds, the last but one up to 160,000 seconds, which is nearly two
 * days, and the last one all that took longer.  A duration that is a bound is in the bin that
 * it ends.
 *
 * A quantile is found in the bin that has the exact one, so it is as exact as this bin is narrow.
 *
 * A histogram that is stored is packed: of each bin that has a count its number, in one byte, and
 * the count in groups of seven bits, the lowest first; the highest bit of a byte says that more
 * follow.  Bins are in their order.
 *
 * Pure: it compiles without a server and keeps nothing.
 */
#include "core/histogram.h"

/* A decade that begins with so many microseconds. */
#define DECADE(first)                                                                       \
	INT64_C(first), INT64_C(first) * 16 / 10, INT64_C(first) * 25 / 10, INT64_C(first) * 4, \
		INT64_C(first) * 63 / 10

const int64_t qml_histogram_bounds[QML_HISTOGRAM_BINS - 1] = {
	DECADE(100),		 DECADE(1000),			DECADE(10000),		   DECADE(100000),
	DECADE(1000000),	 DECADE(10000000),		DECADE(100000000),	   DECADE(1000000000),
	DECADE(10000000000), INT64_C(100000000000), INT64_C(160000000000),
};

/* The bin of a duration in microseconds.  One below 0, of a clock that was set back, is as 0. */
int
qml_histogram_bin(int64_t duration)
{
	int low = 0;
	int high = QML_HISTOGRAM_BINS - 1;

	/* The first bound that is not below it. */
	while (low < high)
	{
		int middle = (low + high) / 2;

		if (qml_histogram_bounds[middle] < duration)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * A duration of a bin that has so many: about that with this number, from 1 on.  It is one that the
 * bin can have.
 */
static int64_t
place_in(int bin, uint64_t number, uint64_t count)
{
	int64_t first = bin == 0 ? 0 : qml_histogram_bounds[bin - 1] + 1;
	double breadth;

	/* Nobody knows how far it reaches. */
	if (bin == QML_HISTOGRAM_BINS - 1)
		return first - 1;
	breadth = (double) (qml_histogram_bounds[bin] - first);
	return first + (int64_t) (breadth * ((double) number - 0.5) / (double) count);
}

/*
 * The duration, in microseconds, that this part of all durations does not exceed; -1: there are
 * none.  quantile: from 0 to 1.
 */
int64_t
qml_histogram_quantile(const uint64_t *counts, double quantile)
{
	uint64_t all = 0;
	uint64_t wanted;

	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
		all += counts[i];
	if (all == 0)
		return -1;
	/* The number of the duration, if they were sorted; rounded up. */
	wanted = (uint64_t) (quantile * (double) all);
	if ((double) wanted < quantile * (double) all || wanted == 0)
		wanted++;
	if (wanted > all)
		wanted = all;
	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
	{
		if (wanted <= counts[i])
			return place_in(i, wanted, counts[i]);
		wanted -= counts[i];
	}
	return -1;
}

/* Returns the number of bytes that were written. */
size_t
qml_histogram_pack(const uint64_t *counts, unsigned char *packed)
{
	size_t size = 0;

	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
	{
		uint64_t rest = counts[i];

		if (rest == 0)
			continue;
		packed[size++] = (unsigned char) i;
		while (rest >= 0x80)
		{
			packed[size++] = (unsigned char) (rest | 0x80);
			rest >>= 7;
		}
		packed[size++] = (unsigned char) rest;
	}
	return size;
}

/* Reads a count from *place on; false: there is none. */
static bool
read_count(const unsigned char *packed, size_t size, size_t *place, uint64_t *count)
{
	*count = 0;
	for (int shift = 0; *place < size && shift < 64; shift += 7)
	{
		unsigned char byte = packed[(*place)++];

		*count |= (uint64_t) (byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			return true;
	}
	return false;
}

/* Adds what was packed to the counts; false: it is no histogram, and the counts are undefined. */
bool
qml_histogram_unpack(const unsigned char *packed, size_t size, uint64_t *counts)
{
	size_t place = 0;
	int last = -1;

	while (place < size)
	{
		int bin = packed[place++];
		uint64_t count;

		if (bin <= last || bin >= QML_HISTOGRAM_BINS || !read_count(packed, size, &place, &count))
			return false;
		counts[bin] += count;
		last = bin;
	}
	return true;
}
