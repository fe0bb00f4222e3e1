/*
 * histogram.h
 *		How often durations occur: counts in bins that are spaced by their logarithms.
 */
#ifndef QML_HISTOGRAM_H
#define QML_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QML_HISTOGRAM_BINS 48

/* What qml_histogram_pack() writes at most, in bytes. */
#define QML_HISTOGRAM_PACKED (QML_HISTOGRAM_BINS * 11)

/* The longest duration of each bin, in microseconds; the last bin has none. */
extern const int64_t qml_histogram_bounds[QML_HISTOGRAM_BINS - 1];

extern int qml_histogram_bin(int64_t duration);
extern int64_t qml_histogram_quantile(const uint64_t *counts, double quantile);
extern size_t qml_histogram_pack(const uint64_t *counts, unsigned char *packed);
extern bool qml_histogram_unpack(const unsigned char *packed, size_t size, uint64_t *counts);

#endif
