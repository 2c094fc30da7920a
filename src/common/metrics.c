#include "common/metrics.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <time.h>

/* A counter or gauge is one number. A histogram is a count for each bucket and one for +Inf, not
 * yet cumulative, and then the sum. */
struct metrics {
    const struct metric_family *families;
    unsigned n_families;
    double *values;
    size_t *first;     /* of each family, in values */
    double start_time; /* of this process, seconds since 1970; NaN when unknown */
};

static unsigned n_series(const struct metric_family *family)
{
    return family->n_series > 0 ? family->n_series : 1;
}

static size_t n_values(const struct metric_family *family)
{
    return family->type == METRIC_HISTOGRAM ? family->n_buckets + 2 : 1;
}

/* ---- the table is checked once ---- */

static bool is_name(const char *name, const char *extra)
{
    if (!*name || isdigit((unsigned char)*name))
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr(extra, *name))
            return false;
    return true;
}

static bool are_buckets(const double *buckets, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!isfinite(buckets[i]) || (i > 0 && buckets[i] <= buckets[i - 1]))
            return false;
    return true;
}

static const char *find_fault(const struct metric_family *family)
{
    if (!is_name(family->name, "_:"))
        return "is no metric name";
    if (!family->help)
        return "has no help";
    if (!family->label && family->n_series > 1)
        return "has series but no label";
    if (family->label && (!family->label_values || family->n_series == 0))
        return "has a label but no series";
    if (family->label && !is_name(family->label, "_"))
        return "has a bad label";
    if (family->type != METRIC_HISTOGRAM)
        return NULL;
    if (family->label && strcmp(family->label, "le") == 0)
        return "has a label that is the histogram's own";
    if (!are_buckets(family->buckets, family->n_buckets))
        return "has buckets that do not ascend";
    return NULL;
}

static int check_families(const struct metric_family *families, unsigned n, struct error *error)
{
    for (unsigned i = 0; i < n; i++) {
        const char *fault = find_fault(&families[i]);
        if (fault)
            return error_set(error, EINVAL, "metric %s %s", families[i].name, fault);
        for (unsigned j = 0; j < i; j++)
            if (strcmp(families[i].name, families[j].name) == 0)
                return error_set(error, EINVAL, "metric %s comes twice", families[i].name);
    }
    return 0;
}

/* ---- this process ---- */

/* What we want from proc(5), /proc/[pid]/stat. */
struct process_stat {
    unsigned long utime, stime; /* ticks */
    unsigned long long start;   /* ticks since boot */
    long resident;              /* pages */
};

static bool read_stat(struct process_stat *stat)
{
    char text[1024];

    cleanup(close_p) int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';

    /* The second field, the command, may hold anything, brackets included. */
    const char *rest = strrchr(text, ')');
    return rest && sscanf(rest,
                          ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu "
                          "%*d %*d %*d %*d %*d %*d %llu %*u %ld",
                          &stat->utime, &stat->stime, &stat->start, &stat->resident) == 4;
}

/* Taken once: as a difference of two clocks it would wobble from scrape to scrape. */
static double find_start_time(void)
{
    struct process_stat stat;
    struct timespec now, boot;

    if (!read_stat(&stat))
        return NAN;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    double booted = (double)(now.tv_sec - boot.tv_sec) + (double)(now.tv_nsec - boot.tv_nsec) / 1e9;
    return round((booted + (double)stat.start / (double)sysconf(_SC_CLK_TCK)) * 100) / 100;
}

static bool count_fds(double *ret)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    unsigned n = 0;

    if (!dir)
        return false;
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    *ret = n - 1; /* the directory's own */
    return true;
}

/* ---- open and close ---- */

static void close_metrics_p(struct metrics **metrics)
{
    *metrics = metrics_close(*metrics);
}

static int allocate(struct metrics *metrics)
{
    size_t n = 0;

    metrics->first = calloc(metrics->n_families + 1, sizeof(*metrics->first));
    if (!metrics->first)
        return -ENOMEM;
    for (unsigned i = 0; i < metrics->n_families; i++) {
        metrics->first[i] = n;
        n += n_series(&metrics->families[i]) * n_values(&metrics->families[i]);
    }
    metrics->values = calloc(n + 1, sizeof(*metrics->values));
    return metrics->values ? 0 : -ENOMEM;
}

int metrics_open(struct metrics **ret, const struct metric_family *families, unsigned n_families,
                 struct error *error)
{
    int r = check_families(families, n_families, error);
    if (r < 0)
        return r;

    cleanup(close_metrics_p) struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (!metrics)
        return error_set(error, ENOMEM, "metrics");
    metrics->families = families;
    metrics->n_families = n_families;
    metrics->start_time = find_start_time();
    r = allocate(metrics);
    if (r < 0)
        return error_set(error, -r, "metrics");

    *ret = TAKE_PTR(metrics);
    return 0;
}

struct metrics *metrics_close(struct metrics *metrics)
{
    if (metrics) {
        free(metrics->first);
        free(metrics->values);
        free(metrics);
    }
    return NULL;
}

/* ---- values ---- */

static double *find_values(const struct metrics *metrics, unsigned family, unsigned series)
{
    assert(family < metrics->n_families);
    assert(series < n_series(&metrics->families[family]));
    return metrics->values + metrics->first[family] + series * n_values(&metrics->families[family]);
}

void metrics_add(struct metrics *metrics, unsigned family, unsigned series, double delta)
{
    double *value = find_values(metrics, family, series);

    assert(metrics->families[family].type != METRIC_HISTOGRAM);
    /* A counter that falls reads as a restart of the process. */
    if (metrics->families[family].type == METRIC_COUNTER && !(delta >= 0))
        return;
    *value += delta;
}

void metrics_set(struct metrics *metrics, unsigned family, unsigned series, double value)
{
    assert(metrics->families[family].type == METRIC_GAUGE);
    *find_values(metrics, family, series) = value;
}

void metrics_observe(struct metrics *metrics, unsigned family, unsigned series, double value)
{
    const struct metric_family *f = &metrics->families[family];
    double *counts = find_values(metrics, family, series);
    unsigned i = 0;

    assert(f->type == METRIC_HISTOGRAM);
    if (isnan(value))
        return;
    while (i < f->n_buckets && value > f->buckets[i])
        i++;
    counts[i]++;
    counts[f->n_buckets + 1] += value;
}

double metrics_get(const struct metrics *metrics, unsigned family, unsigned series)
{
    const struct metric_family *f = &metrics->families[family];
    const double *values = find_values(metrics, family, series);
    double count = 0;

    if (f->type != METRIC_HISTOGRAM)
        return *values;
    for (unsigned i = 0; i <= f->n_buckets; i++)
        count += values[i];
    return count;
}

/* ---- text ---- */

/* Beyond it %.0f would be all digits and no information. */
#define INTEGER_MAX 1e18

static void write_number(FILE *out, double value)
{
    char text[32];

    if (isnan(value)) {
        fputs("NaN", out);
    } else if (isinf(value)) {
        fputs(value > 0 ? "+Inf" : "-Inf", out);
    } else if (value == trunc(value) && fabs(value) < INTEGER_MAX) {
        fprintf(out, "%.0f", value == 0 ? 0 : value); /* no -0 */
    } else {
        /* The shortest that reads back the same: 0.1, and not 0.10000000000000001. */
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof(text), "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
        fputs(text, out);
    }
}

static void write_escaped(FILE *out, const char *text, bool quoted)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '\\' || (quoted && *text == '"'))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void write_head(FILE *out, const char *name, enum metric_type type, const char *help)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter",
        [METRIC_GAUGE] = "gauge",
        [METRIC_HISTOGRAM] = "histogram",
    };

    fprintf(out, "# HELP %s ", name);
    write_escaped(out, help, false);
    fprintf(out, "\n# TYPE %s %s\n", name, types[type]);
}

/* name suffix {label="value",le="bound"} value. bound NULL: none. */
static void write_sample(FILE *out, const struct metric_family *family, const char *suffix,
                         unsigned series, const double *bound, double value)
{
    fprintf(out, "%s%s", family->name, suffix);
    if (family->label || bound)
        fputc('{', out);
    if (family->label) {
        fprintf(out, "%s=\"", family->label);
        write_escaped(out, family->label_values[series], true);
        fputs(bound ? "\"," : "\"", out);
    }
    if (bound) {
        fputs("le=\"", out);
        write_number(out, *bound);
        fputc('"', out);
    }
    fputs(family->label || bound ? "} " : " ", out);
    write_number(out, value);
    fputc('\n', out);
}

static void write_histogram(FILE *out, const struct metric_family *family, unsigned series,
                            const double *values)
{
    static const double infinite = INFINITY;
    double count = 0;

    for (unsigned i = 0; i <= family->n_buckets; i++) {
        count += values[i];
        write_sample(out, family, "_bucket", series,
                     i < family->n_buckets ? &family->buckets[i] : &infinite, count);
    }
    write_sample(out, family, "_sum", series, NULL, values[family->n_buckets + 1]);
    write_sample(out, family, "_count", series, NULL, count);
}

static void write_family(FILE *out, const struct metrics *metrics, unsigned index)
{
    const struct metric_family *family = &metrics->families[index];

    write_head(out, family->name, family->type, family->help);
    for (unsigned i = 0; i < n_series(family); i++) {
        const double *values = find_values(metrics, index, i);

        if (family->type == METRIC_HISTOGRAM)
            write_histogram(out, family, i, values);
        else
            write_sample(out, family, "", i, NULL, *values);
    }
}

static void write_one(FILE *out, const char *name, enum metric_type type, const char *help,
                      double value)
{
    const struct metric_family family = { .name = name };

    write_head(out, name, type, help);
    write_sample(out, &family, "", 0, NULL, value);
}

/* What /proc does not tell is left out: the rest is worth having. */
static void write_process(FILE *out, const struct metrics *metrics)
{
    struct process_stat stat;
    double fds;

    if (read_stat(&stat)) {
        write_one(out, "process_cpu_seconds_total", METRIC_COUNTER,
                  "User and system CPU time spent in seconds.",
                  (double)(stat.utime + stat.stime) / (double)sysconf(_SC_CLK_TCK));
        write_one(out, "process_resident_memory_bytes", METRIC_GAUGE,
                  "Resident memory size in bytes.",
                  (double)stat.resident * (double)sysconf(_SC_PAGESIZE));
    }
    if (count_fds(&fds))
        write_one(out, "process_open_fds", METRIC_GAUGE, "Number of open file descriptors.", fds);
    if (!isnan(metrics->start_time))
        write_one(out, "process_start_time_seconds", METRIC_GAUGE,
                  "Start time of the process since the Unix epoch in seconds.",
                  metrics->start_time);
}

int metrics_render(const struct metrics *metrics, char **ret, size_t *ret_len, struct error *error)
{
    char *text = NULL;
    size_t len = 0;

    FILE *out = open_memstream(&text, &len);
    if (!out)
        return error_set(error, errno, "render metrics");
    for (unsigned i = 0; i < metrics->n_families; i++)
        write_family(out, metrics, i);
    write_process(out, metrics);

    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        return error_set(error, ENOMEM, "render metrics");
    }
    *ret = text;
    *ret_len = len;
    return 0;
}
