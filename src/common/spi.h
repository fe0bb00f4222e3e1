/*
 * spi.h
 *		SQL that qml runs for itself.
 */
#ifndef QML_SPI_H
#define QML_SPI_H

#include "executor/spi.h"

typedef struct QmlSpi
{
	Oid user;
	int security_context;
	int guc_level;
} QmlSpi;

extern void qml_spi_pin_for_script(void);
extern void qml_spi_begin(QmlSpi *spi, Oid owner);
extern uint64 qml_spi_execute(const char *sql, int nargs, const Oid *types, const Datum *values,
							  const bool *isnull, int expected);
extern void qml_spi_utility(const char *sql);
extern uint64 qml_spi_execute_latest(const char *sql, int nargs, const Oid *types,
									 const Datum *values, const bool *isnull, int expected);
extern Datum qml_spi_value(const SPITupleTable *table, uint64 row, int column, Oid type,
						   bool *isnull);
extern List *qml_spi_rows(MemoryContext context, void *(*read)(uint64 row));
extern List *qml_spi_strings(MemoryContext context);
extern void qml_spi_end(QmlSpi *spi);

#endif
