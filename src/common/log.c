#include "common/log.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

/* Otherwise each entry would name the place in this file as its origin. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "common/utf8.h"

/* A message or value that is longer is cut and ends in "…". */
#define TEXT_MAX 512
/* Lines of up to PIPE_BUF bytes do not mix with those of other writers, pipe(7). */
#define LINE_SIZE 4096
/* What every line needs at its end: the mark of missing fields, a brace, a newline. */
#define LINE_TAIL  32
#define FIELDS_MAX 16
#define ELLIPSIS   "…"

static struct {
    const char *name;
    int level;
    enum log_format format;
    bool colours;
} settings = { "torpor", LOG_INFO, LOG_FORMAT_TEXT, false };

/* Lines that found stderr full, not yet told. */
static atomic_uint lost;

static const char *const level_names[] = {
    [LOG_EMERG] = "emergency", [LOG_ALERT] = "alert",     [LOG_CRIT] = "critical",
    [LOG_ERR] = "error",       [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info",       [LOG_DEBUG] = "debug",
};

/* ---- a line, built in place ---- */

struct line {
    size_t len;
    bool full; /* something did not fit */
    char data[LINE_SIZE];
};

static void put_bytes(struct line *line, const char *bytes, size_t n)
{
    if (line->full || n > sizeof(line->data) - LINE_TAIL - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->data + line->len, bytes, n);
    line->len += n;
}

static void put(struct line *line, const char *text)
{
    put_bytes(line, text, strlen(text));
}

/* For the end of the line, where room has been kept. */
static void put_tail(struct line *line, const char *text)
{
    size_t n = strlen(text);

    memcpy(line->data + line->len, text, n);
    line->len += n;
}

/* Writes c as JSON does inside quotes (RFC 8259, 7). DEL is no control character there, but is one
 * for a terminal, as are U+0080 to U+009F. */
static void put_control(struct line *line, unsigned c)
{
    static const char short_forms[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'
    };
    char escape[8];

    if (c < sizeof(short_forms) && short_forms[c])
        snprintf(escape, sizeof(escape), "\\%c", short_forms[c]);
    else
        snprintf(escape, sizeof(escape), "\\u%04x", c);
    put(line, escape);
}

/* Writes the character at s (of len bytes, more may follow) so that it can neither end a quoted
 * string nor steer a terminal. Returns how many bytes it took. */
static size_t put_character(struct line *line, const char *s, size_t len, bool quoted)
{
    size_t n = utf8_character(s, len);
    unsigned char c = (unsigned char)*s;

    if (n == 0) {
        put(line, "\xef\xbf\xbd"); /* U+FFFD */
        return 1;
    }
    if (n == 1 && (c < ' ' || c == 0x7f))
        put_control(line, c);
    else if (n == 2 && c == 0xc2 && (unsigned char)s[1] < 0xa0)
        put_control(line, (unsigned char)s[1]);
    else if (n == 1 && quoted && (c == '"' || c == '\\'))
        put_bytes(line, c == '"' ? "\\\"" : "\\\\", 2);
    else
        put_bytes(line, s, n);
    return n;
}

static void put_escaped(struct line *line, const char *text, bool quoted)
{
    size_t len = strnlen(text, TEXT_MAX + 1);
    bool cut = len > TEXT_MAX;

    if (cut)
        len = utf8_cut(text, TEXT_MAX);
    for (size_t i = 0; i < len;)
        i += put_character(line, text + i, len - i, quoted);
    if (cut)
        put(line, ELLIPSIS);
}

static void put_quoted(struct line *line, const char *text)
{
    put(line, "\"");
    put_escaped(line, text, true);
    put(line, "\"");
}

/* Keys are upper case because the journal's are; in a line they read better small. */
static void put_key(struct line *line, const char *key)
{
    for (; *key; key++) {
        char c = *key >= 'A' && *key <= 'Z' ? (char)(*key - 'A' + 'a') : *key;
        put_bytes(line, &c, 1);
    }
}

/* ---- json ---- */

static void put_json_time(struct line *line, const struct timespec *now)
{
    struct tm utc;
    char text[48];

    gmtime_r(&now->tv_sec, &utc);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof(text) - n, ".%03ldZ", now->tv_nsec / 1000000);
    put_quoted(line, text);
}

static void put_json_field(struct line *line, const struct log_field *field)
{
    put(line, ",\"");
    put_key(line, field->key);
    put(line, "\":");
    put_quoted(line, field->value);
}

static void put_json_head(struct line *line, int level, const char *message)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    put(line, "{\"ts\":");
    put_json_time(line, &now);
    put(line, ",\"level\":");
    put_quoted(line, level_names[level]);
    put(line, ",\"name\":");
    put_quoted(line, settings.name);
    put(line, ",\"msg\":");
    put_quoted(line, message);
}

/* ---- text ---- */

static const char *level_colour(int level)
{
    if (!settings.colours)
        return "";
    return level <= LOG_ERR       ? "\x1b[31m"
           : level == LOG_WARNING ? "\x1b[33m"
           : level == LOG_DEBUG   ? "\x1b[2m"
                                  : "\x1b[32m";
}

static void put_text_head(struct line *line, int level, const char *message)
{
    time_t now = time(NULL);
    struct tm local;
    char clock[16];

    localtime_r(&now, &local);
    strftime(clock, sizeof(clock), "%H:%M:%S ", &local);
    put(line, clock);
    put(line, level_colour(level));
    put(line, level_names[level]);
    put(line, settings.colours ? "\x1b[0m " : " ");
    put_escaped(line, message, false);
}

static void put_text_field(struct line *line, const struct log_field *field)
{
    put(line, " ");
    put_key(line, field->key);
    put(line, "=");
    if (*field->value && !strpbrk(field->value, " \"=\\\n\t"))
        put_escaped(line, field->value, false);
    else
        put_quoted(line, field->value);
}

/* ---- lines to stderr ---- */

/* Whole fields only: half of one would not be JSON. */
static void put_fields(struct line *line, const struct log_field *fields, size_t n,
                       void (*put_field)(struct line *, const struct log_field *))
{
    for (size_t i = 0; i < n; i++) {
        size_t before = line->len;

        if (!fields[i].value)
            continue;
        put_field(line, &fields[i]);
        if (line->full) {
            line->len = before;
            return;
        }
    }
}

static void make_line(struct line *line, int level, const struct log_field *fields, size_t n,
                      const char *message)
{
    line->len = 0;
    line->full = false;
    if (settings.format == LOG_FORMAT_JSON) {
        put_json_head(line, level, message);
        put_fields(line, fields, n, put_json_field);
        put_tail(line, line->full ? ",\"truncated\":\"yes\"}\n" : "}\n");
    } else {
        put_text_head(line, level, message);
        put_fields(line, fields, n, put_text_field);
        put_tail(line, line->full ? " " ELLIPSIS "\n" : "\n");
    }
}

/* A reader that has stopped must not stop us: wait a millisecond, then do without the line. A pipe
 * that polls writable takes PIPE_BUF bytes. */
static bool write_line(const struct line *line)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd stderr_poll = { .fd = STDERR_FILENO, .events = POLLOUT };

    pthread_mutex_lock(&lock);
    bool written = false;
    if (poll(&stderr_poll, 1, 1) > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(write(STDERR_FILENO, line->data, line->len));
        written = n == (ssize_t)line->len;
    }
    pthread_mutex_unlock(&lock);
    return written;
}

static void write_lost(unsigned n)
{
    struct line line;
    char message[64];

    snprintf(message, sizeof(message), "%u log line%s lost because stderr was full, ignoring", n,
             n == 1 ? "" : "s");
    make_line(&line, LOG_WARNING, NULL, 0, message);
    if (!write_line(&line))
        atomic_fetch_add(&lost, n);
}

static void log_to_stderr(int level, const struct log_field *fields, size_t n, const char *message)
{
    struct line line;

    make_line(&line, level, fields, n, message);
    if (!write_line(&line)) {
        atomic_fetch_add(&lost, 1);
        return;
    }
    unsigned n_lost = atomic_exchange(&lost, 0);
    if (n_lost > 0)
        write_lost(n_lost);
}

/* ---- journal ---- */

/* "KEY=value" into a buffer of its own, cut like anywhere else. */
struct journal_entry {
    struct iovec iov[FIELDS_MAX + 3];
    int n;
    char buffers[FIELDS_MAX + 3][64 + TEXT_MAX + sizeof(ELLIPSIS)];
};

static void add_entry(struct journal_entry *entry, const char *key, const char *value)
{
    size_t len = strnlen(value, TEXT_MAX + 1);
    bool cut = len > TEXT_MAX;
    char *buffer = entry->buffers[entry->n];

    if (cut)
        len = utf8_cut(value, TEXT_MAX);
    int n = snprintf(buffer, sizeof(entry->buffers[0]), "%s=%.*s%s", key, (int)len, value,
                     cut ? ELLIPSIS : "");
    if (n < 0 || (size_t)n >= sizeof(entry->buffers[0]))
        return;
    entry->iov[entry->n++] = (struct iovec){ buffer, (size_t)n };
}

static int log_to_journal(int level, const struct log_field *fields, size_t n, const char *message)
{
    struct journal_entry entry = { .n = 0 };
    char priority[4];

    snprintf(priority, sizeof(priority), "%d", level);
    add_entry(&entry, "MESSAGE", message);
    add_entry(&entry, "PRIORITY", priority);
    add_entry(&entry, "SYSLOG_IDENTIFIER", settings.name);
    for (size_t i = 0; i < n && i < FIELDS_MAX; i++)
        if (fields[i].value)
            add_entry(&entry, fields[i].key, fields[i].value);
    return sd_journal_sendv(entry.iov, entry.n);
}

/* ---- opening ---- */

/* systemd.exec(5): JOURNAL_STREAM is "device:inode" of the stream, so that a program whose stderr
 * has been redirected since can tell. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char own[64];

    if (!stream || fstat(STDERR_FILENO, &st) < 0)
        return false;
    snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(stream, own) == 0;
}

/* sd_journal_sendv(3) reports success when there is no journal to write to. */
static bool journal_listens(void)
{
    return access("/run/systemd/journal/socket", W_OK) == 0;
}

static enum log_format choose_format(enum log_format wanted)
{
    bool journal =
        wanted == LOG_FORMAT_JOURNAL || (wanted == LOG_FORMAT_AUTO && stderr_is_journal());

    if (journal && journal_listens())
        return LOG_FORMAT_JOURNAL;
    if (wanted == LOG_FORMAT_JSON || wanted == LOG_FORMAT_TEXT)
        return wanted;
    return isatty(STDERR_FILENO) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
}

/* no-color.org: set and not empty, whatever the value. */
static bool want_colours(void)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && !(no_color && *no_color) && !(term && !strcmp(term, "dumb"));
}

void log_open(const char *name, int level, enum log_format format)
{
    settings.name = name;
    settings.level = level;
    settings.format = choose_format(format);
    settings.colours = want_colours();
    tzset();
}

int log_enabled(int level)
{
    return level >= LOG_EMERG && level <= settings.level && level <= LOG_DEBUG;
}

void log_write(int level, const struct log_field *fields, size_t n_fields, const char *fmt, ...)
{
    int saved = errno;
    char message[TEXT_MAX + 2]; /* one more than the limit, so that a cut shows */
    va_list args;

    if (!log_enabled(level))
        return;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);

    /* What the journal refuses is better on stderr than nowhere. */
    if (settings.format != LOG_FORMAT_JOURNAL ||
        log_to_journal(level, fields, n_fields, message) < 0)
        log_to_stderr(level, fields, n_fields, message);
    errno = saved;
}
