/*-------------------------------------------------------------------------
 *
 * qml_client.c
 *	  A worker, a producer or a session of transactions for the stress tests: options and main().
 *
 *	  qml_client work|produce|transact --name NAME --log-dir DIR [option value]...
 *
 * The exit code is 0 after a regular end, 1 when work was left at the
 * deadline, 2 when the client itself could not go on.
 *
 *-------------------------------------------------------------------------
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_INT,
	OPTION_REAL,
	OPTION_SEED,
	OPTION_FLAG
} OptionType;

typedef struct OptionSpec
{
	const char *name;
	OptionType type;
	size_t offset;
} OptionSpec;

#define SPEC(name, type, field)              \
	{                                        \
		name, type, offsetof(Options, field) \
	}

static const OptionSpec option_specs[] = {
	SPEC("--conninfo", OPTION_TEXT, conninfo),
	SPEC("--first-options", OPTION_TEXT, first_options),
	SPEC("--name", OPTION_TEXT, name),
	SPEC("--log-dir", OPTION_TEXT, log_dir),
	SPEC("--stop-file", OPTION_TEXT, stop_file),
	SPEC("--queues", OPTION_TEXT, queues),
	SPEC("--seed", OPTION_SEED, seed),
	SPEC("--max-seconds", OPTION_REAL, max_seconds),
	SPEC("--prepared", OPTION_FLAG, prepared),

	SPEC("--batch", OPTION_INT, batch),
	SPEC("--lease", OPTION_TEXT, lease),
	SPEC("--fail", OPTION_REAL, fail),
	SPEC("--fail-final", OPTION_REAL, fail_final),
	SPEC("--release", OPTION_REAL, release),
	SPEC("--heartbeat", OPTION_REAL, heartbeat),
	SPEC("--overstay", OPTION_REAL, overstay),
	SPEC("--abandon", OPTION_REAL, abandon),
	SPEC("--stale", OPTION_REAL, stale),
	SPEC("--hold-ms", OPTION_REAL, hold_ms),
	SPEC("--retry-ms", OPTION_REAL, retry_ms),
	SPEC("--maintain-ms", OPTION_REAL, maintain_ms),
	SPEC("--many", OPTION_FLAG, many),
	SPEC("--drain", OPTION_FLAG, drain),
	SPEC("--idle", OPTION_INT, idle),

	SPEC("--methods", OPTION_TEXT, methods),
	SPEC("--jobs", OPTION_INT, jobs),
	SPEC("--many-size", OPTION_INT, many_size),
	SPEC("--priorities", OPTION_INT, priorities),
	SPEC("--max-retries", OPTION_INT, max_retries),
	SPEC("--many-fraction", OPTION_REAL, many_fraction),
	SPEC("--transaction", OPTION_REAL, transaction),
	SPEC("--rollback", OPTION_REAL, rollback),
	SPEC("--delayed", OPTION_REAL, delayed),
	SPEC("--delay-ms", OPTION_REAL, delay_ms),
	SPEC("--pace-ms", OPTION_REAL, pace_ms),

	SPEC("--row", OPTION_REAL, row),
	SPEC("--prepare", OPTION_REAL, prepare),
	SPEC("--id-series", OPTION_INT, id_series),
	SPEC("--first-id", OPTION_INT, first_id),
	SPEC("--handler-queues", OPTION_TEXT, handler_queues),
	SPEC("--claim-in-blocks", OPTION_FLAG, claim_in_blocks),
};

typedef struct Subcommand
{
	const char *name;
	int (*run)(Session *session);
} Subcommand;

static const Subcommand subcommands[] = {
	{"work", work},
	{"produce", produce},
	{"transact", transact},
};

static const Options defaults = {
	.conninfo = "",
	.max_seconds = 60,
	.batch = 1,
	.retry_ms = -1,
	.maintain_ms = -1,
	.idle = 3,
	.jobs = 100,
	.many_size = 50,
	.priorities = 1,
	.max_retries = -1,
	.rollback = 0.5,
	.delay_ms = 500,
};

static void
usage(void)
{
	fprintf(stderr, "usage: qml_client work|produce|transact --name NAME --log-dir DIR");
	for (size_t i = 0; i < sizeof(option_specs) / sizeof(option_specs[0]); i++)
		fprintf(stderr, " [%s%s]", option_specs[i].name,
				option_specs[i].type == OPTION_FLAG ? "" : " VALUE");
	fprintf(stderr, "\n");
	exit(2);
}

static void
set_option(Options *opt, const OptionSpec *spec, const char *value)
{
	char *field = (char *) opt + spec->offset;

	switch (spec->type)
	{
		case OPTION_TEXT:
			*(const char **) field = value;
			break;
		case OPTION_INT:
			*(int *) field = atoi(value);
			break;
		case OPTION_REAL:
			*(double *) field = atof(value);
			break;
		case OPTION_SEED:
			*(uint64_t *) field = strtoull(value, NULL, 10);
			break;
		case OPTION_FLAG:
			*(bool *) field = true;
			break;
	}
}

static const Subcommand *
find_subcommand(const char *name)
{
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
		if (strcmp(subcommands[i].name, name) == 0)
			return &subcommands[i];
	usage();
	return NULL;
}

static const OptionSpec *
find_option(const char *name)
{
	for (size_t i = 0; i < sizeof(option_specs) / sizeof(option_specs[0]); i++)
		if (strcmp(option_specs[i].name, name) == 0)
			return &option_specs[i];
	fprintf(stderr, "unknown option \"%s\"\n", name);
	usage();
	return NULL;
}

static void
parse_options(Options *opt, int argc, char **argv)
{
	*opt = defaults;
	opt->seed = (uint64_t) time(NULL) * 1000 + (uint64_t) getpid();
	for (int i = 2; i < argc; i++)
	{
		const OptionSpec *spec = find_option(argv[i]);

		if (spec->type != OPTION_FLAG && ++i == argc)
			usage();
		set_option(opt, spec, spec->type == OPTION_FLAG ? NULL : argv[i]);
	}
	if (opt->name == NULL || opt->log_dir == NULL || opt->batch < 1 || opt->many_size < 1 ||
		opt->priorities < 1)
		usage();
}

int
main(int argc, char **argv)
{
	Options opt;
	Session session;
	const Subcommand *subcommand;
	int code;

	if (argc < 2)
		usage();
	subcommand = find_subcommand(argv[1]);
	parse_options(&opt, argc, argv);

	session_open(&session, &opt);
	code = subcommand->run(&session);
	session_close(&session);

	printf("%s seed=%llu enqueued=%ld rolledback=%ld claimed=%ld acked=%ld "
		   "refused=%ld unknown=%ld lost=%ld errors=%ld\n",
		   opt.name, (unsigned long long) opt.seed, session.count.enqueued,
		   session.count.rolledback, session.count.claimed, session.count.acked,
		   session.count.refused, session.count.unknown, session.count.lost, session.count.errors);
	return code;
}
