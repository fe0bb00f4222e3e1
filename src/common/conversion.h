/*
 * conversion.h
 *		Fixed settings for converting values of users between text and their types.
 */
#ifndef QML_CONVERSION_H
#define QML_CONVERSION_H

/* What the text of a type can depend on; bits. */
#define QML_NEEDS_NOTHING	0
#define QML_NEEDS_TIMES		(1 << 0)
#define QML_NEEDS_INTERVALS (1 << 1)
#define QML_NEEDS_MONEY		(1 << 2)
#define QML_NEEDS_XML		(1 << 3)
#define QML_NEEDS_BYTES		(1 << 4)
#define QML_NEEDS_FLOATS	(1 << 5)
#define QML_NEEDS_ARRAYS	(1 << 6)
#define QML_NEEDS_NAMES		(1 << 7) /* search_path */
/* Whatever code of users may be called by the conversion keeps its search_path. */
#define QML_NEEDS_ANYTHING (QML_NEEDS_NAMES - 1)

extern int qml_conversion_needs(Oid type);
extern int qml_conversion_begin(int needs);
extern void qml_conversion_end(int level);

#endif
