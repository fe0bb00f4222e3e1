/*
 * pgcron.h
 *		Maintenance by pg_cron.
 */
#ifndef QML_PGCRON_H
#define QML_PGCRON_H

#define QML_PGCRON_JOBS 3

extern int qml_pgcron_schedule(Datum *ids);
extern int qml_pgcron_unschedule(void);

#endif
