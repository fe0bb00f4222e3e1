/*
 * uuid.c
 *		Job ids: UUIDs of version 7 (RFC 9562), which sort by time.
 *
 * 48 bits of Unix milliseconds, the version, 12 bits of the fraction of the
 * millisecond (method 3 of section 6.2), the variant, 62 random bits.  Within
 * one backend ids only grow, also when the clock stands still or goes back.
 */
#include "postgres.h"

#include "port/pg_bswap.h"
#include "utils/timestamp.h"

#include "common/uuid.h"

#define UNIX_EPOCH_OFFSET_USECS ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Bytes are drawn in blocks: a block costs hardly more than eight of them. */
static uint64
random_bits(void)
{
	static uint64 block[64];
	static int left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(block, sizeof(block)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values for a job id")));
		left = lengthof(block);
	}
	return block[--left];
}

/* A new id, larger than all that this backend has generated before. */
void
qml_uuid_generate(pg_uuid_t *id)
{
	static uint64 last = 0; /* milliseconds << 12 | fraction */
	int64 now = GetCurrentTimestamp() + UNIX_EPOCH_OFFSET_USECS;
	uint64 tick = ((uint64) (now / 1000) << 12) | ((now % 1000) * 4096 / 1000);
	uint64 high;
	uint64 low;

	if (tick <= last)
		tick = last + 1;
	last = tick;

	high = (tick >> 12) << 16 | UINT64CONST(0x7000) | (tick & 0xFFF);
	low = (random_bits() >> 2) | UINT64CONST(0x8000000000000000);

	high = pg_hton64(high);
	low = pg_hton64(low);
	memcpy(id->data, &high, 8);
	memcpy(id->data + 8, &low, 8);
}
