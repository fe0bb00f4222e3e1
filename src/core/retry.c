/*
 * retry.c
 *		Backoff: how long to wait before a failed attempt is tried again.
 *
 * Pure: it compiles without a server, and chance comes in as an argument, so that the
 * bounds can be tested.
 *
 * With n the number of failed attempts that count, 1 after the first:
 *
 *		fixed			d = delay
 *		linear			d = delay + increment * (n - 1)
 *		exponential		d = delay * multiplier ^ (n - 1)
 *
 *		wait = min(max_delay, d * (1 + jitter * c)),	c uniform in [-1, 1)
 *
 * The cap comes last, so that jitter never exceeds it.
 */
#include "core/retry.h"

#include <math.h>

/* 1 s * 2^(n-1), at most 15 minutes, +-25 %. */
const QmlRetryPolicy qml_retry_default = {
	.strategy = QML_RETRY_EXPONENTIAL,
	.delay = 1.0,
	.multiplier = 2.0,
	.increment = 1.0,
	.max_delay = 900.0,
	.jitter = 0.25,
};

/*
 * Seconds to wait after `failures` (at least 1) counted failures; `chance` is
 * uniform in [0, 1).  The strategy must not be QML_RETRY_NONE.
 */
double
qml_retry_delay(const QmlRetryPolicy *policy, int failures, double chance)
{
	double delay = policy->delay;

	if (policy->strategy == QML_RETRY_LINEAR)
		delay += policy->increment * (failures - 1);
	else if (policy->strategy == QML_RETRY_EXPONENTIAL)
		delay *= pow(policy->multiplier, failures - 1);

	delay *= 1.0 + policy->jitter * (2.0 * chance - 1.0);

	/* pow() may give infinity, and 0 * infinity is not a number. */
	if (isnan(delay))
		delay = 0.0;

	return fmin(delay, policy->max_delay);
}
