/*
 * pgcron.h
 *		Maintenance by pg_cron.
 */
#ifndef QML_PGCRON_H
#define QML_PGCRON_H

#define QML_PGCRON_JOBS 4

extern int qml_pgcron_schedule(Datum *ids);
extern int qml_pgcron_unschedule(void);
extern bool qml_pgcron_is_own(const char *jobname);
extern bool qml_pgcron_may_serve(bool recurring);
extern bool qml_pgcron_serves(bool recurring);
extern Oid qml_pgcron_require_table(void);

#endif
