/*
 * search_order.h
 *		The order in which jobs are shown: the newest first.
 *
 * A job has its place from its creation to its end, so that pages of an answer neither repeat nor
 * leave out what changes meanwhile.  It is a number, and the id where two jobs have the same: of an
 * id that qml has made its first 64 bits, in which the time of creation is; of any other the
 * time of creation in the same form, with bits of the id in place of the fraction.  So jobs are in
 * the order of an index on their ids, all but those with ids of their own.
 *
 * Indexes have these numbers, so they must never be computed in another way.
 */
#ifndef QML_SEARCH_ORDER_H
#define QML_SEARCH_ORDER_H

#include <stdbool.h>
#include <stdint.h>

/* From 1970 to 2000, in microseconds: times are those of PostgreSQL. */
#define QML_ORDER_EPOCH INT64_C(946684800000000)

/* An id is older or younger than its job by so much at most, in milliseconds. */
#define QML_ORDER_FITS 10000

/* A job that takes longer from its creation to its end is slow: microseconds. */
#define QML_ORDER_SLOW INT64_C(60000000)

/* Orders are within these. */
#define QML_ORDER_FIRST (-(INT64_C(1) << 62))
#define QML_ORDER_LAST	((INT64_C(1) << 62) - 1)

/* Milliseconds since 1970, rounded down, that an order can have. */
static inline int64_t
qml_order_ms(int64_t time)
{
	int64_t limit = INT64_C(1) << 46;
	int64_t ms;

	if (time >= limit * 1000 - QML_ORDER_EPOCH)
		return limit - 1;
	if (time <= -limit * 1000)
		return -limit;
	time += QML_ORDER_EPOCH;
	ms = time / 1000;
	return time % 1000 < 0 ? ms - 1 : ms;
}

/* The first 64 bits of an id. */
static inline int64_t
qml_order_head(const unsigned char *id)
{
	uint64_t head = 0;

	for (int i = 0; i < 8; i++)
		head = head << 8 | id[i];
	return (int64_t) head;
}

/* Whether an id can have the order of its job: it is of version 7, and of a time that orders can have. */
static inline bool
qml_order_is_in_id(const unsigned char *id)
{
	return id[6] >> 4 == 7 && id[8] >> 6 == 2 && id[0] < 0x40;
}

/* Whether it is an id of version 7 whose time is that of the job: qml makes such ids. */
static inline bool
qml_order_is_by_id(const unsigned char *id, int64_t created_at)
{
	int64_t distance;

	if (!qml_order_is_in_id(id))
		return false;
	distance = (qml_order_head(id) >> 16) - qml_order_ms(created_at);
	return distance >= -QML_ORDER_FITS && distance <= QML_ORDER_FITS;
}

/* Where a job stands. */
static inline int64_t
qml_order_of(const unsigned char *id, int64_t created_at)
{
	unsigned bits = 0;

	if (qml_order_is_by_id(id, created_at))
		return qml_order_head(id);
	for (int i = 0; i < 16; i += 2)
		bits ^= (unsigned) id[i] << 8 | id[i + 1];
	return qml_order_ms(created_at) * 65536 + bits;
}

/* All jobs that were created at this time, or earlier, stand before this. */
static inline int64_t
qml_order_latest(int64_t time)
{
	int64_t ms = qml_order_ms(time);

	return ms >= (INT64_C(1) << 46) - 1 - QML_ORDER_FITS ? QML_ORDER_LAST :
														   (ms + QML_ORDER_FITS) * 65536 + 65535;
}

/* And those that were created then, or later, stand here or later. */
static inline int64_t
qml_order_earliest(int64_t time)
{
	int64_t ms = qml_order_ms(time);

	return ms <= -(INT64_C(1) << 46) + QML_ORDER_FITS ? QML_ORDER_FIRST :
														(ms - QML_ORDER_FITS) * 65536;
}

/* Whether a finished job took long. */
static inline bool
qml_order_is_slow(int64_t created_at, int64_t finished_at)
{
	/* Infinite times are not subtracted. */
	return finished_at > created_at && (created_at < INT64_MIN / 2 || finished_at > INT64_MAX / 2 ||
										finished_at - created_at > QML_ORDER_SLOW);
}

#endif
