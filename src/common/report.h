/*
 * report.h
 *		What is said of a failure, or as a reason, made fit to be kept.
 */
#ifndef QML_REPORT_H
#define QML_REPORT_H

#define QML_REPORT_NO_ERROR "(no error text)"

extern Datum qml_report_cut(const char *text, int length, int maxbytes);
extern Datum qml_report_text(Datum given, int maxbytes);
extern Datum qml_report_error(Datum given);
extern Datum qml_report_message(const char *message);
extern Datum qml_report_error_type(Datum given);
extern int qml_report_control_length(const char *value);

#endif
