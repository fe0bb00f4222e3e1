/*
 * stats_file.c
 *		The file that keeps counts and durations while the server is down.
 *
 * The postmaster writes it when it ends, after all others have ended, and reads it when it starts,
 * before there are others.  So nothing that was counted is missing.  The file is removed when it is
 * read, whatever is in it: after a crash there is none.
 *
 * What cannot be read, because it is damaged or of another version or server, is left out with a
 * message in the log: the server starts all the same.  If there may be fewer series now, what is
 * pending of the others is counted in that without a name.
 *
 * Layout: Header, then databases, series with their methods, and a checksum of all of it.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "ipc/stats_file.h"

#define FILE_NAME	   PGSTAT_STAT_PERMANENT_DIRECTORY "/qml.stat"
#define TEMPORARY_NAME FILE_NAME ".tmp"

/* Raised with each change of what the file has. */
#define MAGIC 0x716d6c01

typedef struct Header
{
	uint32 magic;
	int numbers; /* of a series */
	uint64 system;
	TimestampTz saved_at;
	uint64 missed;
	int databases;
	int series;
} Header;

typedef struct SavedDatabase
{
	int number; /* by which series name it */
	Oid oid;
	Oid live;
	TimestampTz since; /* 0: nothing is pending */
	TimestampTz stored_through;
} SavedDatabase;

/* The bytes of the method follow. */
typedef struct SavedSeries
{
	int database;
	int queue;
	int length;
	TimestampTz active_at;
	uint64 now[QML_STAT_NUMBERS];
	uint64 stored[QML_STAT_NUMBERS];
} SavedSeries;

/* A file that is being read or written. */
typedef struct Stream
{
	FILE *file;
	pg_crc32c crc;
	bool failed;
} Stream;

static void
put(Stream *stream, const void *data, size_t size)
{
	COMP_CRC32C(stream->crc, data, size);
	if (!stream->failed && fwrite(data, 1, size, stream->file) != size)
		stream->failed = true;
}

static bool
get(Stream *stream, void *data, size_t size)
{
	if (!stream->failed && fread(data, 1, size, stream->file) != size)
		stream->failed = true;
	if (!stream->failed)
		COMP_CRC32C(stream->crc, data, size);
	return !stream->failed;
}

static bool
is_in_use(QmlStatsEntry *entry)
{
	return pg_atomic_read_u32(&entry->generation) != 0;
}

/* ----- writing ----- */

static void
put_header(Stream *stream, QmlStatsMemory *memory)
{
	Header header;

	memset(&header, 0, sizeof(header));
	header.magic = MAGIC;
	header.numbers = QML_STAT_NUMBERS;
	header.system = GetSystemIdentifier();
	header.saved_at = GetCurrentTimestamp();
	header.missed = pg_atomic_read_u64(&memory->missed);
	for (int i = 0; i < memory->ndatabases; i++)
		header.databases += OidIsValid(memory->databases[i].oid) ? 1 : 0;
	for (int i = 0; i < memory->used; i++)
		header.series += is_in_use(&memory->series[i]) ? 1 : 0;
	put(stream, &header, sizeof(header));
}

static void
put_database(Stream *stream, int number, QmlStatsDatabase *database)
{
	SavedDatabase saved;

	memset(&saved, 0, sizeof(saved));
	saved.number = number;
	saved.oid = database->oid;
	saved.live = database->live;
	saved.since = (TimestampTz) pg_atomic_read_u64(&database->since);
	saved.stored_through = database->stored_through;
	put(stream, &saved, sizeof(saved));
}

static void
put_series(Stream *stream, QmlStatsEntry *entry)
{
	SavedSeries saved;

	memset(&saved, 0, sizeof(saved));
	saved.database = entry->database;
	saved.queue = entry->queue;
	saved.length = entry->length;
	saved.active_at = entry->active_at;
	for (int i = 0; i < QML_STAT_NUMBERS; i++)
		saved.now[i] = pg_atomic_read_u64(&entry->now[i]);
	memcpy(saved.stored, entry->stored, sizeof(saved.stored));
	put(stream, &saved, sizeof(saved));
	put(stream, entry->method, entry->length);
}

static void
put_all(Stream *stream, QmlStatsMemory *memory)
{
	pg_crc32c crc;

	put_header(stream, memory);
	for (int i = 0; i < memory->ndatabases; i++)
	{
		if (OidIsValid(memory->databases[i].oid))
			put_database(stream, i, &memory->databases[i]);
	}
	/* Those without a name first: others may find no room, and are counted in these. */
	for (int named = 0; named <= 1; named++)
	{
		for (int i = 0; i < memory->used; i++)
		{
			if (is_in_use(&memory->series[i]) && (memory->series[i].queue != 0) == named)
				put_series(stream, &memory->series[i]);
		}
	}
	crc = stream->crc;
	FIN_CRC32C(crc);
	put(stream, &crc, sizeof(crc));
}

/* The server ends. */
void
qml_stats_file_save(QmlStatsMemory *memory)
{
	Stream stream = {0};
	int error = 0;

	INIT_CRC32C(stream.crc);
	stream.file = AllocateFile(TEMPORARY_NAME, PG_BINARY_W);
	if (stream.file)
	{
		errno = 0;
		put_all(&stream, memory);
		error = errno;
		if (FreeFile(stream.file) != 0 && !stream.failed)
		{
			stream.failed = true;
			error = errno;
		}
	}
	else
		error = errno;
	if (stream.file == NULL || stream.failed)
	{
		errno = error;
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not write file \"%s\": %m", TEMPORARY_NAME)));
		(void) unlink(TEMPORARY_NAME);
		return;
	}
	/* It logs what goes wrong. */
	(void) durable_rename(TEMPORARY_NAME, FILE_NAME, LOG);
}

/* ----- reading ----- */

/* By the numbers that series name them by: those that they have now, -1: none. */
typedef struct Numbers
{
	int of[QML_STATS_DATABASES];
} Numbers;

static bool
get_header(Stream *stream, Header *header)
{
	return get(stream, header, sizeof(*header)) && header->magic == MAGIC &&
		   header->numbers == QML_STAT_NUMBERS && header->system == GetSystemIdentifier() &&
		   header->databases <= QML_STATS_DATABASES;
}

static bool
get_database(Stream *stream, QmlStatsMemory *memory, TimestampTz saved_at, Numbers *numbers)
{
	QmlStatsDatabase *database = &memory->databases[memory->ndatabases];
	SavedDatabase saved;

	if (!get(stream, &saved, sizeof(saved)) || saved.number < 0 ||
		saved.number >= QML_STATS_DATABASES)
		return false;
	numbers->of[saved.number] = memory->ndatabases;
	database->live = saved.live;
	database->stored_through = saved.stored_through;
	/* What follows the start is of another time. */
	database->until = (saved_at / QML_STATS_MINUTE + 1) * QML_STATS_MINUTE;
	pg_atomic_write_u64(&database->since, (uint64) saved.since);
	database->oid = saved.oid;
	memory->ndatabases++;
	return true;
}

/* Counts what is pending of a series for which there is no room any more. */
static void
add_pending(QmlStatsMemory *memory, int database, const SavedSeries *saved)
{
	uint32 nameless = memory->databases[database].nameless;

	for (int i = 0; nameless != 0 && i < QML_STAT_NUMBERS; i++)
		(void) pg_atomic_fetch_add_u64(&memory->series[nameless - 1].now[i],
									   (int64) (saved->now[i] - saved->stored[i]));
}

static bool
get_series(Stream *stream, QmlStatsMemory *memory, const Numbers *numbers)
{
	char method[QML_STAT_METHOD];
	SavedSeries saved;
	QmlStatsEntry *entry;
	uint32 number;
	int database;

	if (!get(stream, &saved, sizeof(saved)) || saved.length < 0 || saved.length > QML_STAT_METHOD ||
		saved.database < 0 || saved.database >= QML_STATS_DATABASES ||
		numbers->of[saved.database] < 0 || !get(stream, method, saved.length))
		return false;
	database = numbers->of[saved.database];
	number = qml_stats_memory_make(memory, database, saved.queue, method, saved.length,
								   saved.active_at);
	if (number == 0)
	{
		add_pending(memory, database, &saved);
		return true;
	}
	if (saved.queue == 0)
		memory->databases[database].nameless = number;
	entry = &memory->series[number - 1];
	for (int i = 0; i < QML_STAT_NUMBERS; i++)
		pg_atomic_write_u64(&entry->now[i], saved.now[i]);
	memcpy(entry->stored, saved.stored, sizeof(entry->stored));
	return true;
}

/* Each database has a series without a name. */
static bool
has_nameless(const QmlStatsMemory *memory)
{
	for (int i = 0; i < memory->ndatabases; i++)
	{
		if (memory->databases[i].nameless == 0)
			return false;
	}
	return true;
}

static bool
get_all(Stream *stream, QmlStatsMemory *memory)
{
	Header header;
	Numbers numbers;
	pg_crc32c crc;
	pg_crc32c expected;
	bool good;

	for (int i = 0; i < QML_STATS_DATABASES; i++)
		numbers.of[i] = -1;
	good = get_header(stream, &header);
	for (int i = 0; good && i < header.databases; i++)
		good = get_database(stream, memory, header.saved_at, &numbers);
	for (int i = 0; good && i < header.series; i++)
		good = get_series(stream, memory, &numbers);
	expected = stream->crc;
	FIN_CRC32C(expected);
	if (!good || !get(stream, &crc, sizeof(crc)) || !EQ_CRC32C(crc, expected) ||
		!has_nameless(memory))
		return false;
	pg_atomic_write_u64(&memory->missed, header.missed);
	return true;
}

/* As it is made at first. */
static void
clear(QmlStatsMemory *memory)
{
	memory->count = 0;
	memory->used = 0;
	memory->free = 0;
	memory->ndatabases = 0;
	memset(memory->buckets, 0, sizeof(memory->buckets));
	memset(memory->databases, 0, sizeof(memory->databases));
	for (int i = 0; i < QML_STATS_DATABASES; i++)
		pg_atomic_init_u64(&memory->databases[i].since, 0);
}

/* The server starts; the memory is empty. */
void
qml_stats_file_load(QmlStatsMemory *memory)
{
	Stream stream = {0};

	INIT_CRC32C(stream.crc);
	stream.file = AllocateFile(FILE_NAME, PG_BINARY_R);
	if (stream.file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(),
						  errmsg("could not read file \"%s\": %m", FILE_NAME)));
		return;
	}
	if (!get_all(&stream, memory))
	{
		clear(memory);
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
					  errmsg("ignoring invalid data in file \"%s\"", FILE_NAME)));
	}
	(void) FreeFile(stream.file);
	/* Also from the disk: after a crash it must not come back.  It logs what goes wrong. */
	(void) durable_unlink(FILE_NAME, LOG);
}
