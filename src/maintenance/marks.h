/*
 * marks.h
 *		Marks on charts.
 */
#ifndef QML_MARKS_H
#define QML_MARKS_H

#include "utils/timestamp.h"

extern TimestampTz qml_marks_add(const char *label);

#endif
