/* One logging function, structured: a sentence for people, fields for machines.
 *
 * Log once, at the boundary (a request's end, a state change, a survived failure); lower layers
 * return errors and do not log. A failure that we survive ends in ", ignoring".
 *
 * Formats: `journal` (native protocol, sd_journal_sendv(3)), `json` (one object a line on stderr),
 * `text` (a person's terminal), `auto` (journal when stderr is the journal's stream, see
 * $JOURNAL_STREAM in systemd.exec(5); text on a terminal; else json). Never put secrets, tenant
 * headers or cookies into a field. Thread-safe after log_open.
 *
 * In lines on stderr the keys are lower case, and every value is a string. A message or value of
 * more than 512 bytes is cut and ends in "…"; fields that do not fit into a line of 4 KiB are left
 * out, and the line says so. A stderr that is full holds up the caller for a millisecond at most;
 * the line is lost then, and a later one tells how many were. (The journal's socket has no such
 * bound.) */
#pragma once

#include <syslog.h>

#include "common/error.h"

enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_JOURNAL, LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

/* Keys are the journal's: upper case, digits and '_'. A field with a NULL value is left out. */
struct log_field {
    const char *key;
    const char *value;
};

/* level: LOG_ERR … LOG_DEBUG of syslog.h; what is less urgent is dropped. Without log_open:
 * LOG_INFO, text, stderr. `name` is the program's (SYSLOG_IDENTIFIER), not copied. */
void log_open(const char *name, int level, enum log_format format);

/* Is this level written at all? For fields that cost something to make. */
int log_enabled(int level);

void log_write(int level, const struct log_field *fields, size_t n_fields, const char *fmt, ...)
    PRINTF(4, 5);

/* log_info("started") and log_info_with(FIELDS({ "POD", uid }, { "OP", "freeze" }), "frozen").
 * The fields live until the end of the full expression's block. */
#define FIELDS(...)                                                                                \
    (const struct log_field[]){ __VA_ARGS__ },                                                     \
        ARRAY_SIZE(((const struct log_field[]){ __VA_ARGS__ }))

#define log_error(...)        log_write(LOG_ERR, NULL, 0, __VA_ARGS__)
#define log_warning(...)      log_write(LOG_WARNING, NULL, 0, __VA_ARGS__)
#define log_info(...)         log_write(LOG_INFO, NULL, 0, __VA_ARGS__)
#define log_debug(...)        log_write(LOG_DEBUG, NULL, 0, __VA_ARGS__)
#define log_error_with(...)   log_write(LOG_ERR, __VA_ARGS__)
#define log_warning_with(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info_with(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_debug_with(...)   log_write(LOG_DEBUG, __VA_ARGS__)
