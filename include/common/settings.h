/* Settings are a table: flag, environment variable, default, parser, range and help in one place.
 * `--help`, the defaults and the README's section come from it.
 *
 * Order of precedence: command line, environment, default. The environment variable of `--listen`
 * is PREFIX_LISTEN. An unknown option, a missing or bad value is refused with a sentence that names
 * the option (or variable); an unknown variable with our prefix is not an error. Values are
 * `--flag value` or `--flag=value`; the latter also for one that begins with "--". Of a flag given
 * twice the last counts. A variable that is set but empty is an empty list or string, and an error
 * for other types. */
#pragma once

#include <stdbool.h>

#include "common/error.h"

enum setting_type {
    SETTING_STRING,   /* const char *; points into argv, the environment or the table */
    SETTING_STRINGS,  /* struct setting_list; repeatable; comma-separated in the environment */
    SETTING_BOOL,     /* bool; a flag without a value; 1/0/true/false/yes/no in the environment */
    SETTING_UINT,     /* uint64_t, min..max */
    SETTING_DURATION, /* uint64_t microseconds; "5us", "9ms", "2s", "1m", "1h"; no bare number */
    SETTING_SIZE,     /* uint64_t bytes; "64K", "16M", "1G", "1T" (of 1024), or plain bytes */
    SETTING_ENUM,     /* int: index into names */
};

#define SETTING_LIST_MAX 16

struct setting_list {
    char *items[SETTING_LIST_MAX]; /* owned */
    unsigned n;
};

struct setting {
    const char *flag;    /* without the dashes */
    const char *metavar; /* NULL for a bool */
    enum setting_type type;
    size_t offset;            /* of the field in the settings struct */
    const char *fallback;     /* default, in the syntax of the command line; NULL: zero value */
    uint64_t min, max;        /* inclusive, for UINT, DURATION, SIZE; max 0 means no upper limit */
    const char *const *names; /* ENUM, NULL-terminated */
    const char *help;         /* one or more sentences */
};

/* What a command line can also ask for: positive outcomes, already printed to stdout. */
enum settings_outcome { SETTINGS_E_HELP = 1, SETTINGS_E_VERSION };

struct settings_program {
    const char *name;     /* "freeze-agent" */
    const char *synopsis; /* one line: what it is */
    const char *version;
    const char *env_prefix; /* "FREEZE_AGENT" */
    const struct setting *table;
    unsigned n;
};

/* Fills `out` (zeroed by the caller). --help, --version and, for the docs, --help-markdown (the
 * table for the README) are everywhere. -EINVAL with a sentence when something is wrong. Nothing is
 * left to free then, nor after a positive outcome. */
int settings_parse(const struct settings_program *program, int argc, char **argv, void *out,
                   struct error *error) MUST_CHECK;

/* Frees what settings_parse allocated in `out`. */
void settings_free(const struct settings_program *program, void *out);

/* The parsers by themselves, for tests and for other callers. */
int settings_parse_duration(const char *text, uint64_t *ret_usec, struct error *error) MUST_CHECK;
int settings_parse_size(const char *text, uint64_t *ret_bytes, struct error *error) MUST_CHECK;
