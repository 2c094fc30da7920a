#include "common/log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/utf8.h"

#define TEXT_MAX       512
#define LINE_MAX_BYTES 4096
#define CUT            "…"

/* ---- the journal, and whether it is there ---- */

static struct {
    bool present;
    int refuses; /* -errno of every entry */
    unsigned n_entries;
    char entry[8192]; /* the last one, a line for each field */
} journal;

int __wrap_access(const char *path, int mode);
int __wrap_sd_journal_sendv(const struct iovec *iov, int n);

int __wrap_access(const char *path, int mode)
{
    assert_string_equal(path, "/run/systemd/journal/socket");
    assert_int_equal(mode, W_OK);
    return journal.present ? 0 : -1;
}

int __wrap_sd_journal_sendv(const struct iovec *iov, int n)
{
    size_t len = 0;

    if (journal.refuses)
        return journal.refuses;
    journal.n_entries++;
    for (int i = 0; i < n; i++) {
        memcpy(journal.entry + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
        journal.entry[len++] = '\n';
    }
    journal.entry[len] = '\0';
    return 0;
}

/* ---- stderr, caught ---- */

static int real_stderr;
static int caught; /* a memfd that stands in for stderr */

static int catch_stderr(void **state)
{
    (void)state;
    alarm(60);
    memset(&journal, 0, sizeof(journal));
    real_stderr = dup(STDERR_FILENO);
    caught = memfd_create("stderr", MFD_CLOEXEC);
    dup2(caught, STDERR_FILENO);
    log_open("test", LOG_DEBUG, LOG_FORMAT_JSON);
    return 0;
}

static int release_stderr(void **state)
{
    (void)state;
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(caught);
    alarm(0);
    return 0;
}

/* What has been written since the last call. */
static const char *take(void)
{
    static char text[1 << 16];

    ssize_t n = pread(caught, text, sizeof(text) - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    assert_int_equal(ftruncate(caught, 0), 0);
    lseek(caught, 0, SEEK_SET);
    return text;
}

static json_t *parse_line(const char *text)
{
    json_error_t error;

    size_t len = strlen(text);
    assert_true(len > 0 && len <= LINE_MAX_BYTES);
    assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        fail_msg("%s in %s", error.text, text);
    return object;
}

static json_t *take_json(void)
{
    return parse_line(take());
}

static const char *get(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- json ---- */

static void test_json_line(void **state)
{
    (void)state;
    log_info_with(FIELDS({ "POD_UID", "12-34" }, { "OP", "freeze" }), "frozen in %d ms", 7);
    json_t *line = take_json();
    assert_int_equal(json_object_size(line), 6);
    assert_string_equal(get(line, "level"), "info");
    assert_string_equal(get(line, "name"), "test");
    assert_string_equal(get(line, "msg"), "frozen in 7 ms");
    assert_string_equal(get(line, "pod_uid"), "12-34");
    assert_string_equal(get(line, "op"), "freeze");
    json_decref(line);
}

static void test_json_time_is_utc_with_milliseconds(void **state)
{
    struct tm tm = { 0 };
    char *end;

    (void)state;
    setenv("TZ", "Asia/Tokyo", 1);
    log_open("test", LOG_DEBUG, LOG_FORMAT_JSON);
    time_t before = time(NULL);
    log_info("x");
    time_t after = time(NULL);
    unsetenv("TZ");

    json_t *line = take_json();
    const char *ts = get(line, "ts");
    assert_int_equal(strlen(ts), strlen("2026-01-02T03:04:05.678Z"));
    end = strptime(ts, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_non_null(end);
    assert_in_range(timegm(&tm), before, after);
    assert_true(end[0] == '.' && strspn(end + 1, "0123456789") == 3 && strcmp(end + 4, "Z") == 0);
    json_decref(line);
}

static void test_json_levels(void **state)
{
    static const struct {
        int level;
        const char *name;
    } levels[] = {
        { LOG_EMERG, "emergency" }, { LOG_ALERT, "alert" },     { LOG_CRIT, "critical" },
        { LOG_ERR, "error" },       { LOG_WARNING, "warning" }, { LOG_NOTICE, "notice" },
        { LOG_INFO, "info" },       { LOG_DEBUG, "debug" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        log_write(levels[i].level, NULL, 0, "x");
        json_t *line = take_json();
        assert_string_equal(get(line, "level"), levels[i].name);
        json_decref(line);
    }
    log_write(LOG_DEBUG + 1, NULL, 0, "x");
    log_write(-1, NULL, 0, "x");
    assert_string_equal(take(), "");
}

static void test_less_urgent_than_asked_is_dropped(void **state)
{
    (void)state;
    log_open("test", LOG_WARNING, LOG_FORMAT_JSON);
    log_info("x");
    assert_string_equal(take(), "");
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARNING));
    log_warning("x");
    json_decref(take_json());
}

static void test_a_null_value_is_left_out(void **state)
{
    (void)state;
    log_info_with(FIELDS({ "A", NULL }, { "B", "" }), "x");
    json_t *line = take_json();
    assert_null(json_object_get(line, "a"));
    assert_string_equal(get(line, "b"), "");
    json_decref(line);
}

/* Every byte comes back as it was, or as U+FFFD when it is no UTF-8. */
static void test_json_escapes(void **state)
{
    static const struct {
        const char *value, *read_back;
    } cases[] = {
        { "say \"hi\" \\o/", NULL },
        { "\x01\x02\b\t\n\v\f\r\x1b[31m\x1f\x7f", NULL },
        { "é € 😀", NULL },
        { "\xc2\x9b"
          "31m",
          NULL }, /* a terminal's CSI in one character */
        { "\xff", "\xef\xbf\xbd" },
        { "a\xc3", "a\xef\xbf\xbd" },
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xc3(", "\xef\xbf\xbd(" },
        { "\xf0\x9f\x98\"", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *expected = cases[i].read_back ? cases[i].read_back : cases[i].value;

        log_info_with(FIELDS({ "VALUE", cases[i].value }), "%s", cases[i].value);
        const char *text = take();
        for (const char *c = text; *c && *c != '\n'; c++) {
            assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
            assert_false((unsigned char)c[0] == 0xc2 && (unsigned char)c[1] < 0xa0);
        }
        json_t *line = parse_line(text);
        assert_string_equal(get(line, "msg"), expected);
        assert_string_equal(get(line, "value"), expected);
        json_decref(line);
    }
}

static void test_text_at_the_limit_is_whole_and_one_past_is_cut(void **state)
{
    char value[TEXT_MAX + 2];

    (void)state;
    memset(value, 'v', sizeof(value));
    value[TEXT_MAX] = '\0';
    log_info_with(FIELDS({ "VALUE", value }), "%s", value);
    json_t *line = take_json();
    assert_string_equal(get(line, "value"), value);
    assert_string_equal(get(line, "msg"), value);
    json_decref(line);

    value[TEXT_MAX] = 'v';
    value[TEXT_MAX + 1] = '\0';
    log_info_with(FIELDS({ "VALUE", value }), "%s", value);
    line = take_json();
    assert_int_equal(strlen(get(line, "value")), TEXT_MAX + strlen(CUT));
    assert_string_equal(get(line, "value") + TEXT_MAX, CUT);
    assert_string_equal(get(line, "msg"), get(line, "value"));
    json_decref(line);
}

static void test_a_cut_leaves_no_half_character(void **state)
{
    char value[TEXT_MAX + 8];

    (void)state;
    memset(value, 'v', sizeof(value));
    strcpy(value + TEXT_MAX - 1, "é...");
    log_info_with(FIELDS({ "VALUE", value }), "x");
    json_t *line = take_json();
    assert_string_equal(get(line, "value") + TEXT_MAX - 2, "v" CUT);
    json_decref(line);
}

static void test_a_line_that_is_too_long_stays_json_and_says_so(void **state)
{
    char worst[TEXT_MAX + 1], plain[TEXT_MAX + 1];

    (void)state;
    memset(worst, 1, TEXT_MAX); /* each becomes six */
    worst[TEXT_MAX] = '\0';
    memset(plain, 'v', TEXT_MAX);
    plain[TEXT_MAX] = '\0';
    log_info_with(FIELDS({ "A", "1" }, { "B", plain }, { "C", plain }, { "D", "2" }), "%s", worst);

    json_t *line = take_json();
    assert_string_equal(get(line, "msg"), worst);
    assert_string_equal(get(line, "a"), "1");
    assert_string_equal(get(line, "b"), plain);
    assert_null(get(line, "c"));
    assert_null(get(line, "d"));
    assert_string_equal(get(line, "truncated"), "yes");
    json_decref(line);
}

static void test_errno_is_kept(void **state)
{
    (void)state;
    int full = open("/dev/full", O_WRONLY);
    dup2(full, STDERR_FILENO);
    close(full);
    errno = EXDEV;
    log_info("x"); /* fails with ENOSPC */
    assert_int_equal(errno, EXDEV);

    dup2(caught, STDERR_FILENO);
    log_info("y"); /* tells of the one that is lost */
    assert_non_null(strstr(take(), "1 log line lost"));
}

/* ---- text ---- */

static const char *after_clock(const char *text)
{
    assert_true(strlen(text) > 9);
    for (int i = 0; i < 8; i++)
        assert_true(i % 3 == 2 ? text[i] == ':' : text[i] >= '0' && text[i] <= '9');
    assert_int_equal(text[8], ' ');
    return text + 9;
}

static void test_text_line(void **state)
{
    static const struct {
        const char *value, *shown;
    } cases[] = {
        { "plain", "plain" },
        { "", "\"\"" },
        { "two words", "\"two words\"" },
        { "a=b", "\"a=b\"" },
        { "say \"hi\"", "\"say \\\"hi\\\"\"" },
        { "back\\slash", "\"back\\\\slash\"" },
        { "a\nb", "\"a\\nb\"" },
        { "\x1b[2J", "\\u001b[2J" },
        { "caf\xc3\xa9", "caf\xc3\xa9" },
        { "\xff", "\xef\xbf\xbd" },
    };
    char expected[128];

    (void)state;
    log_open("test", LOG_DEBUG, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        log_warning_with(FIELDS({ "KEY", cases[i].value }, { "N", "1" }), "it is \"so\"\n");
        snprintf(expected, sizeof(expected), "warning it is \"so\"\\n key=%s n=1\n",
                 cases[i].shown);
        assert_string_equal(after_clock(take()), expected);
    }
}

static void test_text_that_is_too_long_says_so(void **state)
{
    char worst[TEXT_MAX + 1];

    (void)state;
    log_open("test", LOG_DEBUG, LOG_FORMAT_TEXT);
    memset(worst, 1, TEXT_MAX);
    worst[TEXT_MAX] = '\0';
    log_info_with(FIELDS({ "A", worst }, { "B", "1" }), "%s", worst);
    const char *text = take();
    size_t len = strlen(text);
    assert_true(len <= LINE_MAX_BYTES);
    assert_null(strstr(text, " a="));
    assert_string_equal(text + len - strlen(" " CUT "\n"), " " CUT "\n");
}

/* Opens a terminal in the place of stderr; what is written there is read from the returned fd. */
static int open_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    dup2(terminal, STDERR_FILENO);
    close(terminal);
    return master;
}

static bool logs_in_colour(int master)
{
    char text[256];

    log_open("test", LOG_DEBUG, LOG_FORMAT_AUTO);
    log_error("x");
    ssize_t n = read(master, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_null(strchr(text, '{')); /* a terminal gets text */
    if (strstr(text, "\x1b[31merror\x1b[0m x"))
        return true;
    assert_null(strchr(text, '\x1b'));
    return false;
}

static void test_colours_are_for_terminals(void **state)
{
    (void)state;
    unsetenv("NO_COLOR");
    unsetenv("JOURNAL_STREAM");
    setenv("TERM", "xterm", 1);
    int master = open_terminal();
    assert_true(logs_in_colour(master));
    setenv("NO_COLOR", "", 1);
    assert_true(logs_in_colour(master));
    setenv("NO_COLOR", "1", 1);
    assert_false(logs_in_colour(master));
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    assert_false(logs_in_colour(master));
    close(master);

    dup2(caught, STDERR_FILENO);
    setenv("TERM", "xterm", 1);
    log_open("test", LOG_DEBUG, LOG_FORMAT_TEXT);
    log_error("x");
    assert_null(strchr(take(), '\x1b'));
}

/* ---- journal ---- */

static void test_journal_entry(void **state)
{
    (void)state;
    journal.present = true;
    log_open("test", LOG_DEBUG, LOG_FORMAT_JOURNAL);
    log_warning_with(FIELDS({ "POD", "12" }, { "NONE", NULL }, { "OP", "a b" }), "sen%s", "tence");
    assert_int_equal(journal.n_entries, 1);
    assert_string_equal(journal.entry, "MESSAGE=sentence\nPRIORITY=4\nSYSLOG_IDENTIFIER=test\n"
                                       "POD=12\nOP=a b\n");
    assert_string_equal(take(), "");
}

static void test_journal_values_are_cut(void **state)
{
    char value[TEXT_MAX + 2], expected[TEXT_MAX + 16];

    (void)state;
    journal.present = true;
    log_open("test", LOG_DEBUG, LOG_FORMAT_JOURNAL);
    memset(value, 'v', TEXT_MAX + 1);
    value[TEXT_MAX + 1] = '\0';
    log_info_with(FIELDS({ "VALUE", value }), "x");
    snprintf(expected, sizeof(expected), "\nVALUE=%.*s" CUT "\n", TEXT_MAX, value);
    assert_non_null(strstr(journal.entry, expected));
}

static void test_what_the_journal_refuses_goes_to_stderr(void **state)
{
    (void)state;
    journal.present = true;
    log_open("test", LOG_DEBUG, LOG_FORMAT_JOURNAL);
    journal.refuses = -EINVAL;
    log_info("x");
    assert_non_null(strstr(take(), "info x\n"));
}

static void set_journal_stream(dev_t device, ino_t inode)
{
    char stream[64];

    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)device, (uintmax_t)inode);
    setenv("JOURNAL_STREAM", stream, 1);
}

static unsigned entries_after_auto(void)
{
    unsigned before = journal.n_entries;

    log_open("test", LOG_DEBUG, LOG_FORMAT_AUTO);
    log_info("x");
    return journal.n_entries - before;
}

static void test_auto_finds_the_journal(void **state)
{
    struct stat st;

    (void)state;
    journal.present = true;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    set_journal_stream(st.st_dev, st.st_ino);
    assert_int_equal(entries_after_auto(), 1);
    assert_string_equal(take(), "");

    set_journal_stream(st.st_dev, st.st_ino + 1); /* stderr has been redirected since */
    assert_int_equal(entries_after_auto(), 0);
    json_decref(take_json());

    set_journal_stream(st.st_dev, st.st_ino);
    journal.present = false;
    assert_int_equal(entries_after_auto(), 0);
    json_decref(take_json());

    unsetenv("JOURNAL_STREAM");
    assert_int_equal(entries_after_auto(), 0);
    json_decref(take_json());
}

static void test_an_absent_journal_is_noticed(void **state)
{
    (void)state;
    log_open("test", LOG_DEBUG, LOG_FORMAT_JOURNAL);
    log_info("x");
    assert_int_equal(journal.n_entries, 0);
    json_decref(take_json());
}

/* ---- readers that are slow, writers that are many ---- */

static void fill(int fd)
{
    char junk[4096] = { 0 };

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (write(fd, junk, sizeof(junk)) > 0)
        ;
    fcntl(fd, F_SETFL, 0); /* stderr blocks, as a rule */
}

static void drain(int fd)
{
    char junk[4096];

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (read(fd, junk, sizeof(junk)) > 0)
        ;
}

static size_t read_text(int fd, char *text, size_t size)
{
    ssize_t n = read(fd, text, size - 1);
    assert_true(n > 0);
    text[n] = '\0';
    return (size_t)n;
}

/* Were a full pipe waited for, the alarm would end the test. */
static void test_a_full_stderr_does_not_stop_us(void **state)
{
    int fds[2];
    char text[LINE_MAX_BYTES];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    fill(STDERR_FILENO);
    log_info("lost one");
    log_info("lost two");
    drain(fds[0]);

    log_info("seen");
    read_text(fds[0], text, sizeof(text));
    char *second = strchr(text, '\n') + 1;
    assert_non_null(strstr(second, "2 log lines lost because stderr was full, ignoring"));
    *second = '\0';
    json_t *line = parse_line(text);
    assert_string_equal(get(line, "msg"), "seen");
    json_decref(line);

    log_info("seen too");
    read_text(fds[0], text, sizeof(text));
    line = parse_line(text); /* told once */
    assert_string_equal(get(line, "msg"), "seen too");
    json_decref(line);
    close(fds[0]);
    close(fds[1]);
}

#define N_WRITERS 4
#define N_LINES   40 /* of each; all fit into a pipe of 64 KiB */

static void *write_lines(void *userdata)
{
    for (int i = 0; i < N_LINES; i++)
        log_info_with(FIELDS({ "WRITER", userdata }), "line %d", i);
    return NULL;
}

static void test_lines_of_many_threads_do_not_mix(void **state)
{
    static char text[1 << 16];
    pthread_t threads[N_WRITERS];
    int fds[2];
    unsigned n = 0;
    char *rest;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    for (size_t i = 0; i < N_WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (char *)"writer"), 0);
    for (size_t i = 0; i < N_WRITERS; i++)
        pthread_join(threads[i], NULL);

    read_text(fds[0], text, sizeof(text));
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        json_decref(object);
    }
    assert_int_equal(n, N_WRITERS * N_LINES);
    close(fds[0]);
    close(fds[1]);
}

/* Before log_open: text, info. This test is the first. */
static void test_without_open(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    int fd = memfd_create("stderr", MFD_CLOEXEC);
    char text[128] = "";

    dup2(fd, STDERR_FILENO);
    log_debug("hidden");
    log_info("shown");
    dup2(saved, STDERR_FILENO);
    assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
    assert_string_equal(after_clock(text), "info shown\n");
    close(saved);
    close(fd);
}

#define caught(test) cmocka_unit_test_setup_teardown(test, catch_stderr, release_stderr)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_open),
        caught(test_json_line),
        caught(test_json_time_is_utc_with_milliseconds),
        caught(test_json_levels),
        caught(test_less_urgent_than_asked_is_dropped),
        caught(test_a_null_value_is_left_out),
        caught(test_json_escapes),
        caught(test_text_at_the_limit_is_whole_and_one_past_is_cut),
        caught(test_a_cut_leaves_no_half_character),
        caught(test_a_line_that_is_too_long_stays_json_and_says_so),
        caught(test_errno_is_kept),
        caught(test_text_line),
        caught(test_text_that_is_too_long_says_so),
        caught(test_colours_are_for_terminals),
        caught(test_journal_entry),
        caught(test_journal_values_are_cut),
        caught(test_what_the_journal_refuses_goes_to_stderr),
        caught(test_auto_finds_the_journal),
        caught(test_an_absent_journal_is_noticed),
        caught(test_a_full_stderr_does_not_stop_us),
        caught(test_lines_of_many_threads_do_not_mix),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
