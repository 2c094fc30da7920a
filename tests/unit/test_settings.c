#include "common/settings.h"

#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <setjmp.h>

#include <cmocka.h>

enum colour { RED, GREEN };

struct paint {
    const char *socket;
    struct setting_list listen;
    bool verbose;
    uint64_t threads, free_number;
    uint64_t timeout;
    uint64_t chunk;
    int colour;
};

static const char *const colours[] = { "red", "green", NULL };

#define FIELD(member) .offset = offsetof(struct paint, member)

static const struct setting table[] = {
    { .flag = "socket",
      .metavar = "PATH",
      .type = SETTING_STRING,
      FIELD(socket),
      .fallback = "/run/paint.sock",
      .help = "The socket on which it listens for callers of this node. A stale one is replaced." },
    { .flag = "listen",
      .metavar = "HOST:PORT",
      .type = SETTING_STRINGS,
      FIELD(listen),
      .fallback = "[::1]:80",
      .help = "An address." },
    { .flag = "verbose",
      .type = SETTING_BOOL,
      FIELD(verbose),
      .help = "Say more about each coat of paint than a maid reads." },
    { .flag = "threads",
      .metavar = "N",
      .type = SETTING_UINT,
      FIELD(threads),
      .fallback = "4",
      .min = 1,
      .max = 64,
      .help = "Threads." },
    { .flag = "free-number",
      .metavar = "N",
      .type = SETTING_UINT,
      FIELD(free_number),
      .help = "Any | number." },
    { .flag = "drying-timeout",
      .metavar = "DURATION",
      .type = SETTING_DURATION,
      FIELD(timeout),
      .fallback = "2s",
      .min = 10 * USEC_PER_MSEC,
      .max = 3600 * USEC_PER_SEC,
      .help = "How long." },
    { .flag = "chunk-of-a-name-without-end",
      .metavar = "SIZE",
      .type = SETTING_SIZE,
      FIELD(chunk),
      .fallback = "16M",
      .min = 4096,
      .help = "How much." },
    { .flag = "colour",
      .metavar = "COLOUR",
      .type = SETTING_ENUM,
      FIELD(colour),
      .fallback = "green",
      .names = colours,
      .help = "Which." },
};

static const struct settings_program program = {
    .name = "paint",
    .synopsis = "Paints.",
    .version = "1.2",
    .env_prefix = "PAINT",
    .table = table,
    .n = ARRAY_SIZE(table),
};

#define ARGS_MAX 40

/* Parses a command line that is given word by word. */
static int parse(struct paint *paint, struct error *error, const char *const *words)
{
    char *argv[ARGS_MAX + 2] = { (char *)"paint" };
    int argc = 1;

    memset(paint, 0, sizeof(*paint));
    *error = ERROR_INIT;
    for (; words[argc - 1]; argc++) {
        assert_true(argc <= ARGS_MAX);
        argv[argc] = (char *)words[argc - 1];
    }
    return settings_parse(&program, argc, argv, paint, error);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })

static void assert_refused(const char *const *words, const char *sentence)
{
    struct paint paint;
    struct error error;

    assert_int_equal(parse(&paint, &error, words), -EINVAL);
    assert_string_equal(error.msg, sentence);
    assert_int_equal(paint.listen.n, 0);
}

static int clear_environment(void **state)
{
    (void)state;
    return clearenv();
}

/* ---- where a value comes from ---- */

static void test_defaults(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    assert_int_equal(parse(&paint, &error, WORDS()), 0);
    assert_string_equal(paint.socket, "/run/paint.sock");
    assert_int_equal(paint.listen.n, 1);
    assert_string_equal(paint.listen.items[0], "[::1]:80");
    assert_false(paint.verbose);
    assert_int_equal(paint.threads, 4);
    assert_int_equal(paint.free_number, 0);
    assert_int_equal(paint.timeout, 2000000);
    assert_int_equal(paint.chunk, 16 << 20);
    assert_int_equal(paint.colour, GREEN);
    settings_free(&program, &paint);
    assert_int_equal(paint.listen.n, 0);
    settings_free(&program, &paint);
}

static void test_command_line(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    assert_int_equal(
        parse(&paint, &error,
              WORDS("--socket", "a=b", "--listen=x,y", "--listen", "z", "--verbose", "--threads=64",
                    "--free-number", "18446744073709551615", "--drying-timeout=10ms",
                    "--chunk-of-a-name-without-end", "4096", "--colour", "red")),
        0);
    assert_string_equal(paint.socket, "a=b");
    assert_int_equal(paint.listen.n, 2);
    assert_string_equal(paint.listen.items[0], "x,y"); /* commas are for the environment */
    assert_string_equal(paint.listen.items[1], "z");
    assert_true(paint.verbose);
    assert_int_equal(paint.threads, 64);
    assert_true(paint.free_number == UINT64_MAX);
    assert_int_equal(paint.timeout, 10000);
    assert_int_equal(paint.chunk, 4096);
    assert_int_equal(paint.colour, RED);
    settings_free(&program, &paint);
}

static void test_environment(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    setenv("PAINT_SOCKET", "", 1);
    setenv("PAINT_LISTEN", "a,b", 1);
    setenv("PAINT_VERBOSE", "yes", 1);
    setenv("PAINT_FREE_NUMBER", "7", 1);
    setenv("PAINT_DRYING_TIMEOUT", "1h", 1);
    setenv("PAINT_COLOUR", "red", 1);
    setenv("PAINT_UNKNOWN", "x", 1);
    assert_int_equal(parse(&paint, &error, WORDS()), 0);
    assert_string_equal(paint.socket, "");
    assert_int_equal(paint.listen.n, 2);
    assert_string_equal(paint.listen.items[0], "a");
    assert_string_equal(paint.listen.items[1], "b");
    assert_true(paint.verbose);
    assert_int_equal(paint.free_number, 7);
    assert_int_equal(paint.timeout, 3600000000);
    assert_int_equal(paint.colour, RED);
    settings_free(&program, &paint);
}

static void test_the_command_line_comes_before_the_environment(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    setenv("PAINT_THREADS", "5", 1);
    setenv("PAINT_LISTEN", "a,b", 1);
    setenv("PAINT_VERBOSE", "0", 1);
    assert_int_equal(parse(&paint, &error, WORDS("--threads", "6", "--listen", "c", "--verbose")),
                     0);
    assert_int_equal(paint.threads, 6);
    assert_int_equal(paint.listen.n, 1);
    assert_string_equal(paint.listen.items[0], "c");
    assert_true(paint.verbose);
    settings_free(&program, &paint);
}

static void test_the_last_of_two_counts(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    assert_int_equal(parse(&paint, &error, WORDS("--threads=1", "--threads", "2")), 0);
    assert_int_equal(paint.threads, 2);
    settings_free(&program, &paint);
}

static void test_an_empty_list_turns_the_default_off(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    setenv("PAINT_LISTEN", "", 1);
    assert_int_equal(parse(&paint, &error, WORDS()), 0);
    assert_int_equal(paint.listen.n, 0);
}

static void test_a_bool_in_the_environment(void **state)
{
    static const struct {
        const char *text;
        bool value;
    } cases[] = {
        { "1", true },  { "true", true },   { "yes", true }, { "True", true },
        { "0", false }, { "false", false }, { "no", false }, { "NO", false },
    };
    struct paint paint;
    struct error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        setenv("PAINT_VERBOSE", cases[i].text, 1);
        assert_int_equal(parse(&paint, &error, WORDS()), 0);
        assert_int_equal(paint.verbose, cases[i].value);
        settings_free(&program, &paint);
    }
}

static void test_an_equals_sign_lets_a_value_begin_with_dashes(void **state)
{
    struct paint paint;
    struct error error;

    (void)state;
    assert_int_equal(parse(&paint, &error, WORDS("--socket=--x")), 0);
    assert_string_equal(paint.socket, "--x");
    settings_free(&program, &paint);
    assert_int_equal(parse(&paint, &error, WORDS("--socket", "-x")), 0);
    assert_string_equal(paint.socket, "-x");
    settings_free(&program, &paint);
}

/* ---- what is refused ---- */

static void test_bad_command_lines(void **state)
{
    static const struct {
        const char *words[3];
        const char *sentence;
    } cases[] = {
        { { "x" }, "unexpected argument 'x', see --help" },
        { { "" }, "unexpected argument '', see --help" },
        { { "-" }, "unexpected argument '-', see --help" },
        { { "--verbose", "x" }, "unexpected argument 'x', see --help" },
        { { "-v" }, "unknown option -v, see --help" },
        { { "--" }, "unknown option --, see --help" },
        { { "--nonsense" }, "unknown option --nonsense, see --help" },
        { { "--nonsense=1" }, "unknown option --nonsense, see --help" },
        { { "--thread=1" }, "unknown option --thread, see --help" },
        { { "--threadsx=1" }, "unknown option --threadsx, see --help" },
        { { "--=1" }, "unknown option --, see --help" },
        { { "--help=1" }, "unknown option --help, see --help" },
        { { "--socket" }, "--socket needs a value" },
        { { "--socket", "--verbose" }, "--socket needs a value" },
        { { "--verbose=1" }, "--verbose takes no value" },
        { { "--listen=" }, "--listen: an empty value" },
        { { "--threads", "x" }, "--threads: 'x' is not a number" },
        { { "--threads=" }, "--threads: '' is not a number" },
        { { "--threads=-1" }, "--threads: '-1' is not a number" },
        { { "--threads=+1" }, "--threads: '+1' is not a number" },
        { { "--threads= 1" }, "--threads: ' 1' is not a number" },
        { { "--threads=0x1" }, "--threads: '0x1' is not a number" },
        { { "--threads=1K" }, "--threads: '1K' is not a number" },
        { { "--threads=0" }, "--threads: 0 is not 1 to 64" },
        { { "--threads=65" }, "--threads: 65 is not 1 to 64" },
        { { "--free-number=18446744073709551616" },
          "--free-number: '18446744073709551616' is not a number" },
        { { "--drying-timeout=5" },
          "--drying-timeout: '5' is not a duration like 500ms, 2s, 1m or 1h" },
        { { "--drying-timeout=9ms" }, "--drying-timeout: 9ms is not 10ms to 1h" },
        { { "--drying-timeout=3601s" }, "--drying-timeout: 3601s is not 10ms to 1h" },
        { { "--chunk-of-a-name-without-end=4095" },
          "--chunk-of-a-name-without-end: 4095 is not at least 4K" },
        { { "--colour=blue" }, "--colour: 'blue' is none of red, green" },
        { { "--colour=Red" }, "--colour: 'Red' is none of red, green" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_refused(cases[i].words, cases[i].sentence);
}

static void test_bad_environments(void **state)
{
    static const struct {
        const char *variable, *value, *sentence;
    } cases[] = {
        { "PAINT_THREADS", "65", "PAINT_THREADS: 65 is not 1 to 64" },
        { "PAINT_THREADS", "", "PAINT_THREADS: '' is not a number" },
        { "PAINT_VERBOSE", "on", "PAINT_VERBOSE: 'on' is not 1, 0, true, false, yes or no" },
        { "PAINT_VERBOSE", "", "PAINT_VERBOSE: '' is not 1, 0, true, false, yes or no" },
        { "PAINT_LISTEN", "a,,b", "PAINT_LISTEN: an empty value" },
        { "PAINT_LISTEN", "a,", "PAINT_LISTEN: an empty value" },
        { "PAINT_LISTEN", ",", "PAINT_LISTEN: an empty value" },
        { "PAINT_LISTEN", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
          "PAINT_LISTEN: more than 16 values" },
        { "PAINT_DRYING_TIMEOUT", "1d",
          "PAINT_DRYING_TIMEOUT: '1d' is not a duration like 500ms, 2s, 1m or 1h" },
        { "PAINT_COLOUR", "", "PAINT_COLOUR: '' is none of red, green" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        setenv(cases[i].variable, cases[i].value, 1);
        assert_refused(WORDS(), cases[i].sentence);
        unsetenv(cases[i].variable);
    }
}

static void test_a_list_at_its_limit(void **state)
{
    struct paint paint;
    struct error error;
    const char *words[SETTING_LIST_MAX + 2] = { NULL };

    (void)state;
    for (int i = 0; i < SETTING_LIST_MAX; i++)
        words[i] = "--listen=x";
    assert_int_equal(parse(&paint, &error, words), 0);
    assert_int_equal(paint.listen.n, SETTING_LIST_MAX);
    settings_free(&program, &paint);

    words[SETTING_LIST_MAX] = "--listen=x";
    assert_refused(words, "--listen: more than 16 values");
}

static void test_a_bad_default_is_found(void **state)
{
    const struct setting bad = {
        .flag = "n", .metavar = "N", .type = SETTING_UINT, .fallback = "0", .min = 1, .help = "N."
    };
    const struct settings_program p = { .name = "p", .env_prefix = "P", .table = &bad, .n = 1 };
    struct error error = ERROR_INIT;
    uint64_t out = 0;

    (void)state;
    assert_int_equal(settings_parse(&p, 1, (char *[]){ (char *)"p", NULL }, &out, &error), -EINVAL);
    assert_string_equal(error.msg, "default of --n: 0 is not at least 1");
}

/* ---- durations and sizes ---- */

struct scaled_case {
    const char *text;
    uint64_t value;
};

static void test_durations(void **state)
{
    static const struct scaled_case good[] = {
        { "0s", 0 },
        { "1us", 1 },
        { "500ms", 500000 },
        { "2s", 2000000 },
        { "1m", 60000000 },
        { "1h", 3600000000 },
        { "007s", 7000000 },
        { "18446744073709551615us", UINT64_MAX },
        { "5124095576h", 5124095576 * (uint64_t)3600000000 },
    };
    static const char *const bad[] = { "",
                                       "0",
                                       "5",
                                       "s",
                                       "1S",
                                       "1.5s",
                                       "-1s",
                                       "1 s",
                                       "1sec",
                                       " 1s",
                                       "1s ",
                                       "1h1m",
                                       "1M",
                                       "18446744073709551616us",
                                       "30000000000000000000us",
                                       "18446744073709552ms",
                                       "5124095577h" };
    uint64_t value = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(settings_parse_duration(good[i].text, &value, NULL), 0);
        assert_true(value == good[i].value);
    }
    value = 42;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(settings_parse_duration(bad[i], &value, NULL), -EINVAL);
    assert_int_equal(value, 42);
}

static void test_sizes(void **state)
{
    static const struct scaled_case good[] = {
        { "0", 0 },
        { "123", 123 },
        { "64K", 65536 },
        { "16M", 16 << 20 },
        { "1G", 1 << 30 },
        { "2T", (uint64_t)2 << 40 },
        { "18446744073709551615", UINT64_MAX },
        { "16777215T", (uint64_t)16777215 << 40 },
    };
    static const char *const bad[] = { "",    "K",   "1k",   "1KB",
                                       "1Ki", "-1",  "1.5G", "16777216T",
                                       "1 K", "1K ", "0x10", "18446744073709551616" };
    uint64_t value = 42;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(settings_parse_size(bad[i], &value, NULL), -EINVAL);
    assert_int_equal(value, 42);
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(settings_parse_size(good[i].text, &value, NULL), 0);
        assert_true(value == good[i].value);
    }
}

/* ---- what is printed ---- */

/* Parses a command line of one word and returns what went to stdout. */
static const char *printed(const char *word, int outcome)
{
    static char text[8192];
    struct paint paint;
    struct error error;

    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    int fd = memfd_create("stdout", MFD_CLOEXEC);
    dup2(fd, STDOUT_FILENO);
    int r = parse(&paint, &error, WORDS("--listen=x", word));
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);

    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    close(fd);
    assert_int_equal(r, outcome);
    assert_int_equal(paint.listen.n, 0);
    assert_true(n > 0);
    text[n] = '\0';
    return text;
}

static void test_help(void **state)
{
    static const char expected[] =
        "Usage: paint [OPTION]...\n"
        "Paints.\n"
        "\n"
        "  --socket PATH              The socket on which it listens for callers of this\n"
        "                             node. A stale one is replaced.\n"
        "                             [default: /run/paint.sock] [env: PAINT_SOCKET]\n"
        "  --listen HOST:PORT         An address. May be given more than once.\n"
        "                             [default: [::1]:80] [env: PAINT_LISTEN]\n"
        "  --verbose                  Say more about each coat of paint than a maid\n"
        "                             reads. [env: PAINT_VERBOSE]\n"
        "  --threads N                Threads. 1 to 64. [default: 4] [env: PAINT_THREADS]\n"
        "  --free-number N            Any | number. [env: PAINT_FREE_NUMBER]\n"
        "  --drying-timeout DURATION  How long. 10ms to 1h. [default: 2s]\n"
        "                             [env: PAINT_DRYING_TIMEOUT]\n"
        "  --chunk-of-a-name-without-end SIZE\n"
        "                             How much. At least 4K. [default: 16M]\n"
        "                             [env: PAINT_CHUNK_OF_A_NAME_WITHOUT_END]\n"
        "  --colour COLOUR            Which. One of red, green. [default: green]\n"
        "                             [env: PAINT_COLOUR]\n"
        "  --help                     Print this and exit.\n"
        "  --version                  Print the version and exit.\n";

    (void)state;
    const char *text = printed("--help", SETTINGS_E_HELP);
    assert_string_equal(text, expected);
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= 80);
}

static void test_help_needs_no_good_environment(void **state)
{
    (void)state;
    setenv("PAINT_THREADS", "many", 1);
    printed("--help", SETTINGS_E_HELP);
}

static void test_help_markdown(void **state)
{
    static const char expected[] =
        "| Option | Environment | Default | Meaning |\n"
        "|---|---|---|---|\n"
        "| `--socket PATH` | `PAINT_SOCKET` | `/run/paint.sock` | The socket on which it listens "
        "for callers of this node. A stale one is replaced. |\n"
        "| `--listen HOST:PORT` | `PAINT_LISTEN` | `[::1]:80` | An address. May be given more than "
        "once. |\n"
        "| `--verbose` | `PAINT_VERBOSE` | | Say more about each coat of paint than a maid reads. |\n"
        "| `--threads N` | `PAINT_THREADS` | `4` | Threads. 1 to 64. |\n"
        "| `--free-number N` | `PAINT_FREE_NUMBER` | | Any \\| number. |\n"
        "| `--drying-timeout DURATION` | `PAINT_DRYING_TIMEOUT` | `2s` | How long. 10ms to 1h. |\n"
        "| `--chunk-of-a-name-without-end SIZE` | `PAINT_CHUNK_OF_A_NAME_WITHOUT_END` | `16M` | "
        "How much. At least 4K. |\n"
        "| `--colour COLOUR` | `PAINT_COLOUR` | `green` | Which. One of red, green. |\n";

    (void)state;
    assert_string_equal(printed("--help-markdown", SETTINGS_E_HELP), expected);
}

static void test_version(void **state)
{
    (void)state;
    assert_string_equal(printed("--version", SETTINGS_E_VERSION), "paint 1.2\n");
}

#define clean(test) cmocka_unit_test_setup(test, clear_environment)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        clean(test_defaults),
        clean(test_command_line),
        clean(test_environment),
        clean(test_the_command_line_comes_before_the_environment),
        clean(test_the_last_of_two_counts),
        clean(test_an_empty_list_turns_the_default_off),
        clean(test_a_bool_in_the_environment),
        clean(test_an_equals_sign_lets_a_value_begin_with_dashes),
        clean(test_bad_command_lines),
        clean(test_bad_environments),
        clean(test_a_list_at_its_limit),
        clean(test_a_bad_default_is_found),
        clean(test_durations),
        clean(test_sizes),
        clean(test_help),
        clean(test_help_needs_no_good_environment),
        clean(test_help_markdown),
        clean(test_version),
    };

    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
