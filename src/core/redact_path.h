/*
 * redact_path.h
 *		Paths to what is hidden in the documents of jobs.
 *
 * Pure C without anything of the server, so that it can be compiled into test
 * programs.
 */
#ifndef QML_REDACT_PATH_H
#define QML_REDACT_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one path.  A set of steps is 32 bits. */
#define QML_REDACT_MAX_STEPS  20
#define QML_REDACT_MAX_LENGTH 400

/* The documents that have such paths. */
typedef enum QmlRedactDocument
{
	QML_REDACT_PAYLOAD = 0,
	QML_REDACT_METADATA,
	QML_REDACT_DOCUMENTS
} QmlRedactDocument;

/* A path.  It has no pointers, so that it can be copied, and compared byte by byte. */
typedef struct QmlRedactPath
{
	QmlRedactDocument document;
	int nsteps;
	bool is_any[QML_REDACT_MAX_STEPS];	  /* it stands for all members or elements */
	uint16_t begin[QML_REDACT_MAX_STEPS]; /* of its text */
	uint16_t length[QML_REDACT_MAX_STEPS];
	char texts[QML_REDACT_MAX_LENGTH];
} QmlRedactPath;

/* How far paths have been followed: bit n is set if n steps have been taken. */
typedef uint32_t QmlRedactSteps;

#define QML_REDACT_ROOT ((QmlRedactSteps) 1)

extern const char *qml_redact_path_parse(const char *text, size_t length, QmlRedactPath *path);
extern QmlRedactSteps qml_redact_path_member(const QmlRedactPath *path, QmlRedactSteps taken,
											 const char *key, size_t length);
extern QmlRedactSteps qml_redact_path_element(const QmlRedactPath *path, QmlRedactSteps taken,
											  unsigned index);
extern bool qml_redact_path_is_end(const QmlRedactPath *path, QmlRedactSteps taken);
extern bool qml_redact_path_meets(const QmlRedactPath *path, const char *const *steps, int nsteps);

#endif
