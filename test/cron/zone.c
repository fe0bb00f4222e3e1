/*
 * zone.c
 *		Time zones of the tests of cron expressions: tables of instants and offsets.
 *
 * The zones are those of the system's tz database (TZDIR or /usr/share/zoneinfo),
 * every name of it except the copies below posix/ and right/.  The instants that a
 * file lists are read from the file (RFC 8536); what follows them by a rule is
 * found by asking the C library twice a day until LAST_INSTANT, after which the
 * last offset stays.  Asking the library about everything, as zdump does, would
 * take ten times as long.  Nothing here comes from PostgreSQL.
 *
 * Whatever is wrong with the database ends the program.
 */
#include "zone.h"

#include <dirent.h>
#include <err.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define DEFAULT_DIRECTORY "/usr/share/zoneinfo"
#define MAX_FILE_SIZE	  (1 << 20)
#define FIRST_PROBE		  INT64_C(0)		  /* rules are not followed before 1970 */
#define LAST_INSTANT	  INT64_C(2272147200) /* 2042-01-01 */
#define PROBE_STEP		  (12 * 3600)

/* A file of the database; `data` points to its 64-bit part. */
typedef struct File
{
	const unsigned char *data;
	size_t times;
	size_t types;
	const char *rule;
} File;

static void
at(const QmlCronZone *base, int64_t instant, int32_t *offset, int64_t *until)
{
	const Zone *zone = (const Zone *) base;
	size_t part = zone_part(zone, instant);

	*offset = zone->offset[part];
	*until = zone_until(zone, part);
}

/* Begins a zone without parts; zone_add() must follow. */
void
zone_init(Zone *zone, const char *name)
{
	zone->base.at = at;
	zone->name = strdup(name);
	zone->parts = 0;
	zone->since = NULL;
	zone->offset = NULL;
	if (zone->name == NULL)
		err(1, NULL);
}

/* Adds a part; the first one must begin at INT64_MIN, the others in order. */
void
zone_add(Zone *zone, int64_t since, int32_t offset)
{
	size_t count = zone->parts + 1;

	zone->since = realloc(zone->since, count * sizeof(*zone->since));
	zone->offset = realloc(zone->offset, count * sizeof(*zone->offset));
	if (zone->since == NULL || zone->offset == NULL)
		err(1, NULL);
	if (zone->parts == 0 ? since != INT64_MIN : since <= zone->since[zone->parts - 1])
		errx(1, "%s: parts are out of order", zone->name);
	zone->since[zone->parts] = since;
	zone->offset[zone->parts] = offset;
	zone->parts = count;
}

void
zone_free(Zone *zone)
{
	free(zone->name);
	free(zone->since);
	free(zone->offset);
}

/* The part that holds the instant. */
size_t
zone_part(const Zone *zone, int64_t instant)
{
	size_t low = 0;
	size_t high = zone->parts;

	while (high - low > 1)
	{
		size_t middle = (low + high) / 2;

		if (zone->since[middle] <= instant)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The first instant after a part. */
int64_t
zone_until(const Zone *zone, size_t part)
{
	return part + 1 < zone->parts ? zone->since[part + 1] : INT64_MAX;
}

static uint64_t
big_endian(const unsigned char *bytes, size_t count)
{
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value = value << 8 | bytes[i];
	return value;
}

/* Length of what follows a header, whose times have `width` bytes. */
static size_t
body_length(const unsigned char *header, size_t width)
{
	size_t isutcs = big_endian(header + 20, 4);
	size_t isstds = big_endian(header + 24, 4);
	size_t leaps = big_endian(header + 28, 4);
	size_t times = big_endian(header + 32, 4);
	size_t types = big_endian(header + 36, 4);
	size_t chars = big_endian(header + 40, 4);

	return times * (width + 1) + types * 6 + chars + leaps * (width + 4) + isstds + isutcs;
}

/* False: this is not a file of the database. */
static bool
parse_file(const unsigned char *bytes, size_t length, const char *name, File *file)
{
	const size_t header_length = 44;
	size_t second, end;

	if (length < header_length || memcmp(bytes, "TZif", 4) != 0)
		return false;
	second = header_length + body_length(bytes, 4);
	if (bytes[4] < '2' || length < second + header_length)
		errx(1, "%s: no 64-bit times", name);
	file->data = bytes + second + header_length;
	file->times = big_endian(bytes + second + 32, 4);
	file->types = big_endian(bytes + second + 36, 4);
	end = second + header_length + body_length(bytes + second, 8);
	if (length < end + 2 || file->types == 0)
		errx(1, "%s: the file is cut off", name);
	file->rule = (const char *) bytes + end + 1;
	return true;
}

static int32_t
offset_of_type(const File *file, size_t type)
{
	const unsigned char *types = file->data + file->times * 9;

	return (int32_t) (uint32_t) big_endian(types + type * 6, 4);
}

static void
add_listed(Zone *zone, const File *file)
{
	zone_add(zone, INT64_MIN, offset_of_type(file, 0));
	for (size_t i = 0; i < file->times; i++)
	{
		int64_t since = (int64_t) big_endian(file->data + i * 8, 8);
		size_t type = file->data[file->times * 8 + i];

		zone_add(zone, since, offset_of_type(file, type));
	}
}

static int32_t
library_offset(int64_t instant)
{
	time_t seconds = instant;
	struct tm tm;

	if (localtime_r(&seconds, &tm) == NULL)
		err(1, "localtime_r");
	return (int32_t) tm.tm_gmtoff;
}

/* The first instant in (low, high] that has the offset of `high`. */
static int64_t
find_change(int64_t low, int64_t high)
{
	int32_t offset = library_offset(high);

	while (high - low > 1)
	{
		int64_t middle = low + (high - low) / 2;

		if (library_offset(middle) == offset)
			high = middle;
		else
			low = middle;
	}
	return high;
}

/* Adds what a rule says about the time after the last listed instant. */
static void
add_ruled(Zone *zone, const char *path)
{
	int64_t low = zone->since[zone->parts - 1];
	int32_t offset = zone->offset[zone->parts - 1];
	char tz[PATH_MAX + 1];

	if (low < FIRST_PROBE)
		low = FIRST_PROBE;
	snprintf(tz, sizeof(tz), ":%s", path);
	if (setenv("TZ", tz, 1) != 0)
		err(1, "setenv");
	tzset();
	for (int64_t high = low + PROBE_STEP; high < LAST_INSTANT; low = high, high += PROBE_STEP)
	{
		if (library_offset(high) == offset)
			continue;
		offset = library_offset(high);
		zone_add(zone, find_change(low, high), offset);
	}
}

static void
load_file(ZoneList *list, const char *path, const char *name)
{
	static unsigned char bytes[MAX_FILE_SIZE + 1];
	FILE *stream = fopen(path, "rb");
	size_t length;
	File file;
	Zone *zone;

	if (stream == NULL)
		err(1, "%s", path);
	length = fread(bytes, 1, MAX_FILE_SIZE, stream);
	if (ferror(stream) || length == MAX_FILE_SIZE)
		errx(1, "%s: cannot be read", path);
	fclose(stream);
	bytes[length] = '\0';
	if (!parse_file(bytes, length, name, &file))
		return;
	list->zones = realloc(list->zones, (list->count + 1) * sizeof(*list->zones));
	if (list->zones == NULL)
		err(1, NULL);
	zone = &list->zones[list->count++];
	zone_init(zone, name);
	add_listed(zone, &file);
	if (strchr(file.rule, ',') != NULL)
		add_ruled(zone, path);
}

/* Not zones of the database but copies of it or of one of its zones. */
static bool
is_copy(const char *name)
{
	static const char *const names[] = {"posix", "right", "localtime", "posixrules"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static void
load_directory(ZoneList *list, const char *top, const char *prefix)
{
	char path[PATH_MAX];
	char name[NAME_MAX + 1];
	DIR *directory;
	struct dirent *entry;
	struct stat status;

	if (snprintf(path, sizeof(path), "%s/%s", top, prefix) >= (int) sizeof(path))
		errx(1, "%s: too long", top);
	directory = opendir(path);
	if (directory == NULL)
		err(1, "%s (is the package tzdata installed?)", path);
	while ((entry = readdir(directory)) != NULL)
	{
		if (entry->d_name[0] == '.' || is_copy(entry->d_name))
			continue;
		if (snprintf(name, sizeof(name), "%s%s", prefix, entry->d_name) >= (int) sizeof(name) - 1 ||
			snprintf(path, sizeof(path), "%s/%s", top, name) >= (int) sizeof(path))
			errx(1, "%s: too long", entry->d_name);
		if (stat(path, &status) != 0)
			err(1, "%s", path);
		if (S_ISREG(status.st_mode))
			load_file(list, path, name);
		else if (S_ISDIR(status.st_mode))
		{
			strcat(name, "/");
			load_directory(list, top, name);
		}
	}
	closedir(directory);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const Zone *) a)->name, ((const Zone *) b)->name);
}

/* Loads all zones, in an order that does not depend on the file system. */
void
zone_list_load(ZoneList *list)
{
	const char *top = getenv("TZDIR");

	list->count = 0;
	list->zones = NULL;
	load_directory(list, top != NULL ? top : DEFAULT_DIRECTORY, "");
	if (list->count == 0)
		errx(1, "no time zones found (is the package tzdata installed?)");
	qsort(list->zones, list->count, sizeof(*list->zones), compare_names);
}

void
zone_list_free(ZoneList *list)
{
	for (size_t i = 0; i < list->count; i++)
		zone_free(&list->zones[i]);
	free(list->zones);
}

/* NULL: there is none. */
const Zone *
zone_list_find(const ZoneList *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
	{
		if (strcmp(list->zones[i].name, name) == 0)
			return &list->zones[i];
	}
	return NULL;
}
