/*
 * suggest.h
 *		Which name was probably meant by one that is not known.
 */
#ifndef QML_SUGGEST_H
#define QML_SUGGEST_H

/* A search for the nearest of some names.  Made by qml_suggest_begin(). */
typedef struct QmlSuggestion
{
	char *wanted; /* in lower case; NULL: nothing is like it */
	int limit;	  /* names that differ in more characters are not like it */
	char *best;	  /* the nearest name so far; NULL: none */
} QmlSuggestion;

extern void qml_suggest_begin(QmlSuggestion *suggestion, const char *wanted);
extern void qml_suggest_consider(QmlSuggestion *suggestion, const char *name);
extern void qml_suggest_consider_as(QmlSuggestion *suggestion, const char *name, const char *shown);
extern const char *qml_suggest_question(const QmlSuggestion *suggestion);

#endif
