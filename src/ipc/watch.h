/*
 * watch.h
 *		What has changed in a database, for sessions that watch it.
 */
#ifndef QML_WATCH_H
#define QML_WATCH_H

/* Queues whose ids differ by a multiple of this are not told apart. */
#define QML_WATCH_QUEUES 4096

/* What is told apart: each queue, and: */
enum
{
	QML_WATCH_ALL = QML_WATCH_QUEUES, /* anything, but what is in qml's own queue */
	QML_WATCH_OWN,					  /* something in that one */
	QML_WATCH_COMMON,				  /* what belongs to no queue: servers, handlers */
	QML_WATCH_RIGHTS,				  /* who may see which queues, and which there are */
	QML_WATCH_CELLS
};

#define QML_WATCH_WORDS ((QML_WATCH_CELLS + 63) / 64)

/* A set of these.  Most have few: `used` says in which words they are, counted modulo 64. */
typedef struct QmlWatchSet
{
	uint64 used;
	uint64 words[QML_WATCH_WORDS];
} QmlWatchSet;

/* What a look has found. */
typedef enum QmlWatchFound
{
	QML_WATCH_NOTHING = 0,
	QML_WATCH_CHANGED,
	QML_WATCH_ASK_RIGHTS /* who may see what has changed: ask, and look again */
} QmlWatchFound;

static inline void
qml_watch_add(QmlWatchSet *set, int cell)
{
	set->used |= UINT64CONST(1) << (cell / 64 % 64);
	set->words[cell / 64] |= UINT64CONST(1) << (cell % 64);
}

static inline int
qml_watch_cell_of(int queue)
{
	return (int) ((uint32) queue % QML_WATCH_QUEUES);
}

extern void qml_watch_init(void);

/* By whoever has changed something that others can see. */
extern bool qml_watch_is_on(void);
extern int qml_watch_own_queue(void);
extern void qml_watch_add_queue(QmlWatchSet *set, int queue);
extern void qml_watch_tell(const QmlWatchSet *changed);
extern void qml_watch_tell_queue(int queue);
extern void qml_watch_tell_common(Oid database);
extern void qml_watch_tell_everything(Oid database);

/* By a session that watches its database. */
extern bool qml_watch_begin(void);
extern void qml_watch_end(void);
extern void qml_watch_set_own_queue(int queue);
extern int64 qml_watch_take_rights(void);
extern int qml_watch_rest(int64 version);
extern void qml_watch_expect(const QmlWatchSet *set);
extern bool qml_watch_is_woken(void);
extern QmlWatchFound qml_watch_look(const QmlWatchSet *set, const int64 *since, int64 rights_at,
									int64 *version);

#endif
