/* Prometheus metrics, declared as a table and written in text format 0.0.4.
 *
 * A program declares its families once; a series is (family, index into the label's values), so
 * that the number of series is fixed at compile time: no label ever comes from a caller. Loop
 * thread only. Names follow prometheus.io/docs/practices/naming: base units, `_total` for counters.
 * Source of the format: prometheus.io/docs/instrumenting/exposition_formats. */
#pragma once

#include <stdbool.h>

#include "common/error.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_family {
    const char *name;
    const char *help;
    enum metric_type type;
    const char *label;               /* NULL: one series without labels */
    const char *const *label_values; /* n_series of them */
    unsigned n_series;               /* 0 means 1 */
    const double *buckets;           /* histogram: upper bounds, ascending, without +Inf */
    unsigned n_buckets;
};

struct metrics;

/* The table must outlive the object; a family is known by its index. */
int metrics_open(struct metrics **ret, const struct metric_family *families, unsigned n_families,
                 struct error *error) MUST_CHECK;
struct metrics *metrics_close(struct metrics *metrics);

/* A negative delta of a counter and a NaN that is observed are ignored. A wrong index or type is a
 * bug and aborts. metrics_get of a histogram is the number of observations. */
void metrics_add(struct metrics *metrics, unsigned family, unsigned series, double delta);
void metrics_set(struct metrics *metrics, unsigned family, unsigned series, double value);
void metrics_observe(struct metrics *metrics, unsigned family, unsigned series, double value);
double metrics_get(const struct metrics *metrics, unsigned family, unsigned series);

/* The whole exposition, process_* of this process included (process_cpu_seconds_total,
 * process_resident_memory_bytes, process_open_fds, process_start_time_seconds, from
 * /proc/self). The caller frees it. */
int metrics_render(const struct metrics *metrics, char **ret, size_t *ret_len,
                   struct error *error) MUST_CHECK;
