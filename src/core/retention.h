/*
 * retention.h
 *		How long finished jobs are kept.
 */
#ifndef QML_RETENTION_H
#define QML_RETENTION_H

#include <stdint.h>

extern int64_t qml_retention_end(int64_t finished_at, int64_t ttl);

#endif
