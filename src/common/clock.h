/*
 * clock.h
 *		Durations, on clocks that no administrator sets.
 */
#ifndef QML_CLOCK_H
#define QML_CLOCK_H

#include "portability/instr_time.h"

extern int64 qml_clock_monotonic_ms(void);
extern int64 qml_clock_monotonic_us(void);
extern double qml_clock_ms_since(instr_time start);
extern void qml_clock_pause(int milliseconds);

#endif
