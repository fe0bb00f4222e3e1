/*
 * dead_server.c
 *		The servers that were given up: which jobs are lost with them.
 *
 * They stay in qml.server_data for a day, marked with the time (server.c).  Nothing is
 * changed here, and nothing locked.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "utils/builtins.h"

#include "common/spi.h"
#include "maintenance/dead_server.h"
#include "model/catalog.h"

static int
compare_servers(const void *a, const void *b)
{
	return strcmp(((const QmlDeadServer *) a)->id, ((const QmlDeadServer *) b)->id);
}

/* All servers that are marked dead, in the current memory context. */
QmlDeadServers *
qml_dead_server_read(void)
{
	MemoryContext context = CurrentMemoryContext;
	QmlDeadServers *dead;
	QmlSpi spi;
	int count;

	qml_spi_begin(&spi, qml_catalog()->owner);
	count = (int) qml_spi_execute("SELECT s.id, s.dead_at FROM qml.server_data s "
								  "WHERE s.dead_at IS NOT NULL",
								  0, NULL, NULL, NULL, SPI_OK_SELECT);
	dead = MemoryContextAlloc(context, offsetof(QmlDeadServers, servers) +
										   sizeof(QmlDeadServer) * Max(count, 1));
	dead->count = count;
	for (int i = 0; i < count; i++)
	{
		Datum id = qml_spi_value(SPI_tuptable, i, 1, TEXTOID, NULL);
		Datum dead_at = qml_spi_value(SPI_tuptable, i, 2, TIMESTAMPTZOID, NULL);

		dead->servers[i].id = MemoryContextStrdup(context, TextDatumGetCString(id));
		dead->servers[i].dead_at = DatumGetTimestampTz(dead_at);
	}
	qml_spi_end(&spi);
	/* Here and not in SQL: the collation of the database may sort otherwise. */
	qsort(dead->servers, count, sizeof(QmlDeadServer), compare_servers);
	return dead;
}

/*
 * Whether a server, whose id need not be terminated, was given up after a time.  What it
 * claims later, because it does not know yet, is not lost with it.
 */
bool
qml_dead_server_find(const QmlDeadServers *dead, const char *id, int length, TimestampTz after)
{
	int low = 0;
	int high = dead->count - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		const QmlDeadServer *server = &dead->servers[middle];
		int order = strncmp(id, server->id, length);

		if (order == 0)
			order = server->id[length] == '\0' ? 0 : -1;
		if (order == 0)
			return after <= server->dead_at;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return false;
}
