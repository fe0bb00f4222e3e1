/*
 * retry.h
 *		When a failed attempt is tried again.
 */
#ifndef QML_RETRY_H
#define QML_RETRY_H

typedef enum QmlRetryStrategy
{
	QML_RETRY_NONE,
	QML_RETRY_FIXED,
	QML_RETRY_LINEAR,
	QML_RETRY_EXPONENTIAL
} QmlRetryStrategy;

/* All times in seconds. */
typedef struct QmlRetryPolicy
{
	QmlRetryStrategy strategy;
	double delay;	   /* before the first retry */
	double multiplier; /* exponential: growth from one retry to the next */
	double increment;  /* linear: added from one retry to the next */
	double max_delay;  /* never wait longer, jitter included */
	double jitter;	   /* 0..1, the part of the delay that is left to chance */
} QmlRetryPolicy;

extern const QmlRetryPolicy qml_retry_default;

extern double qml_retry_delay(const QmlRetryPolicy *policy, int failures, double chance);

#endif
