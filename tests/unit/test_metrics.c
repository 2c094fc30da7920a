#include "common/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>

#include <cmocka.h>

static const char *const codes[] = { "ok", "a\"b\\c\nd" };
static const char *const states[] = { "frozen", "running" };
static const double buckets[] = { 0.005, 0.1, 1, 2.5 };

enum { REQUESTS, UPTIME, PODS, LATENCY, DURATION };

static const struct metric_family families[] = {
    [REQUESTS] = { .name = "test_requests_total",
                   .help = "Requests, by \"code\".\nA back\\slash.",
                   .type = METRIC_COUNTER,
                   .label = "code",
                   .label_values = codes,
                   .n_series = 2 },
    [UPTIME] = { .name = "test_uptime_seconds_total", .help = "Up.", .type = METRIC_COUNTER },
    [PODS] = { .name = "test_pods", .help = "Pods.", .type = METRIC_GAUGE, .n_series = 1 },
    [LATENCY] = { .name = "test_latency_seconds",
                  .help = "Latency.",
                  .type = METRIC_HISTOGRAM,
                  .buckets = buckets,
                  .n_buckets = 4 },
    [DURATION] = { .name = "test_duration_seconds",
                   .help = "Duration.",
                   .type = METRIC_HISTOGRAM,
                   .label = "state",
                   .label_values = states,
                   .n_series = 2,
                   .buckets = buckets + 2,
                   .n_buckets = 1 },
};

static int open_metrics(void **state)
{
    struct metrics *metrics;

    if (metrics_open(&metrics, families, ARRAY_SIZE(families), NULL) < 0)
        return -1;
    *state = metrics;
    return 0;
}

static int close_metrics(void **state)
{
    *state = metrics_close(*state);
    return 0;
}

static char *render(struct metrics *metrics)
{
    char *text = NULL;
    size_t len = 0;

    assert_int_equal(metrics_render(metrics, &text, &len, NULL), 0);
    assert_int_equal(strlen(text), len);
    assert_int_equal(text[len - 1], '\n');
    return text;
}

/* ---- the text ---- */

static void test_the_whole_text(void **state)
{
    static const char expected[] =
        "# HELP test_requests_total Requests, by \"code\".\\nA back\\\\slash.\n"
        "# TYPE test_requests_total counter\n"
        "test_requests_total{code=\"ok\"} 3\n"
        "test_requests_total{code=\"a\\\"b\\\\c\\nd\"} 0\n"
        "# HELP test_uptime_seconds_total Up.\n"
        "# TYPE test_uptime_seconds_total counter\n"
        "test_uptime_seconds_total 0.25\n"
        "# HELP test_pods Pods.\n"
        "# TYPE test_pods gauge\n"
        "test_pods -2\n"
        "# HELP test_latency_seconds Latency.\n"
        "# TYPE test_latency_seconds histogram\n"
        "test_latency_seconds_bucket{le=\"0.005\"} 1\n"
        "test_latency_seconds_bucket{le=\"0.1\"} 2\n"
        "test_latency_seconds_bucket{le=\"1\"} 2\n"
        "test_latency_seconds_bucket{le=\"2.5\"} 3\n"
        "test_latency_seconds_bucket{le=\"+Inf\"} 4\n"
        "test_latency_seconds_sum 102.505\n"
        "test_latency_seconds_count 4\n"
        "# HELP test_duration_seconds Duration.\n"
        "# TYPE test_duration_seconds histogram\n"
        "test_duration_seconds_bucket{state=\"frozen\",le=\"1\"} 0\n"
        "test_duration_seconds_bucket{state=\"frozen\",le=\"+Inf\"} 0\n"
        "test_duration_seconds_sum{state=\"frozen\"} 0\n"
        "test_duration_seconds_count{state=\"frozen\"} 0\n"
        "test_duration_seconds_bucket{state=\"running\",le=\"1\"} 1\n"
        "test_duration_seconds_bucket{state=\"running\",le=\"+Inf\"} 1\n"
        "test_duration_seconds_sum{state=\"running\"} 0.5\n"
        "test_duration_seconds_count{state=\"running\"} 1\n"
        "# HELP process_cpu_seconds_total ";
    struct metrics *metrics = *state;

    metrics_add(metrics, REQUESTS, 0, 1);
    metrics_add(metrics, REQUESTS, 0, 2);
    metrics_add(metrics, UPTIME, 0, 0.25);
    metrics_set(metrics, PODS, 0, 5);
    metrics_add(metrics, PODS, 0, -7);
    metrics_observe(metrics, LATENCY, 0, 0.005); /* a bound belongs to its bucket */
    metrics_observe(metrics, LATENCY, 0, 0.05);
    metrics_observe(metrics, LATENCY, 0, 2.45);
    metrics_observe(metrics, LATENCY, 0, 100);
    metrics_observe(metrics, DURATION, 1, 0.5);

    cleanup(free_p) char *text = render(metrics);
    text[strlen(expected)] = '\0';
    assert_string_equal(text, expected);
}

static void test_numbers(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { -0.0, "0" },
        { 1, "1" },
        { -1, "-1" },
        { 0.1, "0.1" },
        { 1.0 / 3, "0.3333333333333333" },
        { 1e15, "1000000000000000" },
        { 9007199254740991.0, "9007199254740991" },
        { 123456789012345678.0, "123456789012345680" }, /* as a double has it */
        { 1e18, "1e+18" },
        { -1e17, "-100000000000000000" },
        { 1e-9, "1e-09" },
        { 1234567.875, "1234567.875" },
        { INFINITY, "+Inf" },
        { -INFINITY, "-Inf" },
        { NAN, "NaN" },
    };
    char expected[64];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        metrics_set(*state, PODS, 0, cases[i].value);
        cleanup(free_p) char *text = render(*state);
        snprintf(expected, sizeof(expected), "\ntest_pods %s\n", cases[i].text);
        if (!strstr(text, expected))
            fail_msg("no %s in %s", expected, text);
    }
}

/* ---- values ---- */

static void test_get(void **state)
{
    struct metrics *metrics = *state;

    assert_true(metrics_get(metrics, REQUESTS, 1) == 0);
    metrics_add(metrics, REQUESTS, 1, 2);
    assert_true(metrics_get(metrics, REQUESTS, 1) == 2);
    assert_true(metrics_get(metrics, REQUESTS, 0) == 0);
    metrics_set(metrics, PODS, 0, 1.5);
    assert_true(metrics_get(metrics, PODS, 0) == 1.5);
    metrics_observe(metrics, DURATION, 1, 0.5);
    metrics_observe(metrics, DURATION, 1, 7);
    assert_true(metrics_get(metrics, DURATION, 1) == 2);
    assert_true(metrics_get(metrics, DURATION, 0) == 0);
}

static void test_a_counter_never_falls(void **state)
{
    struct metrics *metrics = *state;

    metrics_add(metrics, UPTIME, 0, 2);
    metrics_add(metrics, UPTIME, 0, -1);
    metrics_add(metrics, UPTIME, 0, NAN);
    assert_true(metrics_get(metrics, UPTIME, 0) == 2);
}

static void test_observing_nan_is_ignored(void **state)
{
    struct metrics *metrics = *state;

    metrics_observe(metrics, LATENCY, 0, NAN);
    assert_true(metrics_get(metrics, LATENCY, 0) == 0);
}

/* ---- this process ---- */

static double find_sample(const char *text, const char *name)
{
    char line[128];

    snprintf(line, sizeof(line), "\n%s ", name);
    const char *found = strstr(text, line);
    if (!found)
        fail_msg("no %s", name);
    return strtod(found + strlen(line), NULL);
}

static double scrape(struct metrics *metrics, const char *name)
{
    cleanup(free_p) char *text = render(metrics);

    return find_sample(text, name);
}

static unsigned count_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_open_fds(void **state)
{
    double before = scrape(*state, "process_open_fds");

    if (!getenv("VALGRIND")) /* it keeps some to itself */
        assert_true(before == count_fds());
    int fd = open("/dev/null", O_RDONLY);
    assert_true(scrape(*state, "process_open_fds") == before + 1);
    close(fd);
    assert_true(scrape(*state, "process_open_fds") == before);
}

static void test_cpu_seconds(void **state)
{
    struct timespec used;
    clock_t until = clock() + CLOCKS_PER_SEC / 10;

    while (clock() < until) /* a system call: so that user time counts, count */
        for (volatile int i = 0; i < 100000; i++)
            ;
    double seconds = scrape(*state, "process_cpu_seconds_total");
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    /* The kernel tells it in ticks of 10 ms, user and system apart. */
    assert_true(seconds >= 0.05);
    assert_true(seconds <= (double)used.tv_sec + (double)used.tv_nsec / 1e9 + 0.03);
}

static void test_resident_memory(void **state)
{
    size_t size = 64 << 20;
    double before = scrape(*state, "process_resident_memory_bytes");

    char *memory = malloc(size);
    assert_non_null(memory);
    memset(memory, 1, size);
    double after = scrape(*state, "process_resident_memory_bytes");
    assert_true(memory[size - 1] == 1);
    free(memory);
    assert_true(before > 0);
    assert_true(after - before > 0.9 * (double)size);
}

static void test_start_time(void **state)
{
    double started = scrape(*state, "process_start_time_seconds");

    assert_true(started <= (double)time(NULL) + 1);
    assert_true(started > (double)time(NULL) - 600);
    assert_true(scrape(*state, "process_start_time_seconds") == started);
}

/* ---- tables that are wrong ---- */

static void test_bad_tables_are_refused(void **state)
{
    static const double falling[] = { 1, 1 }, infinite[] = { 1, INFINITY };
    static const struct {
        struct metric_family family;
        const char *sentence;
    } cases[] = {
        { { "", "h", METRIC_GAUGE, NULL, NULL, 0, NULL, 0 }, "metric  is no metric name" },
        { { "1a", "h", METRIC_GAUGE, NULL, NULL, 0, NULL, 0 }, "metric 1a is no metric name" },
        { { "a-b", "h", METRIC_GAUGE, NULL, NULL, 0, NULL, 0 }, "metric a-b is no metric name" },
        { { "a", NULL, METRIC_GAUGE, NULL, NULL, 0, NULL, 0 }, "metric a has no help" },
        { { "a", "h", METRIC_GAUGE, NULL, NULL, 2, NULL, 0 }, "metric a has series but no label" },
        { { "a", "h", METRIC_GAUGE, "l", codes, 0, NULL, 0 },
          "metric a has a label but no series" },
        { { "a", "h", METRIC_GAUGE, "l", NULL, 1, NULL, 0 }, "metric a has a label but no series" },
        { { "a", "h", METRIC_GAUGE, "l:", codes, 1, NULL, 0 }, "metric a has a bad label" },
        { { "a", "h", METRIC_HISTOGRAM, "le", codes, 1, buckets, 1 },
          "metric a has a label that is the histogram's own" },
        { { "a", "h", METRIC_HISTOGRAM, NULL, NULL, 0, falling, 2 },
          "metric a has buckets that do not ascend" },
        { { "a", "h", METRIC_HISTOGRAM, NULL, NULL, 0, infinite, 2 },
          "metric a has buckets that do not ascend" },
    };
    struct metrics *metrics = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(metrics_open(&metrics, &cases[i].family, 1, &error), -EINVAL);
        assert_null(metrics);
        assert_memory_equal(error.msg, cases[i].sentence, strlen(cases[i].sentence));
    }
}

static void test_a_name_that_comes_twice_is_refused(void **state)
{
    const struct metric_family twice[] = { { .name = "a", .help = "h" },
                                           { .name = "b", .help = "h" },
                                           { .name = "a", .help = "h" } };
    struct metrics *metrics = NULL;

    (void)state;
    assert_int_equal(metrics_open(&metrics, twice, 3, NULL), -EINVAL);
    assert_int_equal(metrics_open(&metrics, twice, 2, NULL), 0);
    metrics_close(metrics);
}

static void test_no_families_at_all(void **state)
{
    struct metrics *metrics = NULL;

    (void)state;
    assert_null(metrics_close(NULL));
    assert_int_equal(metrics_open(&metrics, NULL, 0, NULL), 0);
    cleanup(free_p) char *text = render(metrics);
    assert_memory_equal(text, "# HELP process_", 15);
    metrics_close(metrics);
}

#define with_metrics(test) cmocka_unit_test_setup_teardown(test, open_metrics, close_metrics)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        with_metrics(test_the_whole_text),
        with_metrics(test_numbers),
        with_metrics(test_get),
        with_metrics(test_a_counter_never_falls),
        with_metrics(test_observing_nan_is_ignored),
        with_metrics(test_open_fds),
        with_metrics(test_cpu_seconds),
        with_metrics(test_resident_memory),
        with_metrics(test_start_time),
        cmocka_unit_test(test_bad_tables_are_refused),
        cmocka_unit_test(test_a_name_that_comes_twice_is_refused),
        cmocka_unit_test(test_no_families_at_all),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
