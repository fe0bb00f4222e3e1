/*
 * clock.c
 *		Durations, on clocks that no administrator sets.
 */
#include "postgres.h"

#include <time.h>

#include "miscadmin.h"
#include "storage/latch.h"

#include "common/clock.h"
#include "common/wait_event.h"

/* Milliseconds since `start`. */
double
qml_clock_ms_since(instr_time start)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* Microseconds since some moment in the past: only differences mean anything. */
int64
qml_clock_monotonic_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The same in milliseconds. */
int64
qml_clock_monotonic_ms(void)
{
	return qml_clock_monotonic_us() / 1000;
}

/* Between two tries of something that is not waited for; can be canceled. */
void
qml_clock_pause(int milliseconds)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlRetry");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}
