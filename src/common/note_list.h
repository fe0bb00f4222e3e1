/*
 * note_list.h
 *		What a transaction notes for the end of it, by subtransaction.
 */
#ifndef QML_NOTE_LIST_H
#define QML_NOTE_LIST_H

#include "access/xact.h"

/* So many notes need no allocation. */
#define QML_FEW_NOTES 16

/* A kind of notes.  Each is a structure whose first member is the SubTransactionId it belongs to. */
typedef struct QmlNoteKind
{
	Size size;
	int part; /* the list is full when 1 / part of the most notes are different ones */
	bool (*is_same)(const void *note, const void *other); /* but for what is added up */
	void (*add)(void *note, const void *other);			  /* what is added up, of the same */
	int (*compare)(const void *note, const void *other);  /* 0: they are the same */
} QmlNoteKind;

typedef struct QmlNoteList
{
	const QmlNoteKind *kind;
	void *few;	 /* room for QML_FEW_NOTES */
	char *notes; /* few, or in TopTransactionContext */
	int count;
	int room;
} QmlNoteList;

#define QML_NOTE_LIST(a_kind, a_few)                                                       \
	{                                                                                      \
		.kind = (a_kind), .few = (a_few), .notes = (char *) (a_few), .room = QML_FEW_NOTES \
	}

extern bool qml_note_list_add(QmlNoteList *list, void *note, int most);
extern void qml_note_list_join(QmlNoteList *list);
extern void qml_note_list_forget(QmlNoteList *list);
extern void qml_note_list_end_subxact(QmlNoteList *list, SubXactEvent event, SubTransactionId mine,
									  SubTransactionId parent);

#endif
