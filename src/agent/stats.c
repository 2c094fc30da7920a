#include "agent/stats.h"

#include "agent/freezer.h"
#include "agent/reconcile.h"

static const char *const pods_values[] = { [STAT_PODS_FREEZING] = "freezing",
                                           [STAT_PODS_FROZEN] = "frozen",
                                           [STAT_PODS_THAWING] = "thawing" };

static const char *const freeze_values[] = { [STAT_FREEZE_OK] = "ok",
                                             [STAT_FREEZE_REFUSED] = "refused",
                                             [STAT_FREEZE_TIMEOUT] = "timeout",
                                             [STAT_FREEZE_ERROR] = "error" };

static const char *const drift_values[] = { [STAT_DRIFT_SWAP_MAX] = "memory.swap.max",
                                            [STAT_DRIFT_THAWED] = "cgroup.freeze",
                                            [STAT_DRIFT_CONTAINER] = "container" };

static const char *const http_values[] = {
    [STAT_HTTP_2XX] = "2xx", [STAT_HTTP_4XX] = "4xx", [STAT_HTTP_5XX] = "5xx"
};

static const char *const version_values[] = { TORPOR_VERSION };

/* From a tenth of a millisecond, which is what the kernel needs, to the timeout. */
static const double fast[] = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                               0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5 };
static const double slow[] = { 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300 };

static_assert(ARRAY_SIZE(pods_values) == STAT_PODS_N, "pods");
static_assert(ARRAY_SIZE(freeze_values) == STAT_FREEZE_N, "freezes");
static_assert(ARRAY_SIZE(drift_values) == STAT_DRIFT_N, "drift");
static_assert(ARRAY_SIZE(http_values) == STAT_HTTP_N, "http");

const struct metric_family stats_families[STATS_N] = {
    [STAT_BUILD_INFO] = { .name = "freeze_agent_build_info",
                          .help = "1, with the version of this agent.",
                          .type = METRIC_GAUGE,
                          .label = "version",
                          .label_values = version_values,
                          .n_series = 1 },
    [STAT_PODS] = { .name = "freeze_agent_pods",
                    .help = "Pods under the agent's care.",
                    .type = METRIC_GAUGE,
                    .label = "state",
                    .label_values = pods_values,
                    .n_series = STAT_PODS_N },
    [STAT_FREEZES] = { .name = "freeze_agent_freezes_total",
                       .help = "Freezes that were asked for, by how they ended.",
                       .type = METRIC_COUNTER,
                       .label = "result",
                       .label_values = freeze_values,
                       .n_series = STAT_FREEZE_N },
    [STAT_THAWS] = { .name = "freeze_agent_thaws_total",
                     .help = "Pods that were thawed, by why.",
                     .type = METRIC_COUNTER,
                     .label = "cause",
                     .label_values = thaw_cause_names,
                     .n_series = THAW_CAUSES_N },
    [STAT_FREEZE_SECONDS] = { .name = "freeze_agent_freeze_duration_seconds",
                              .help = "From the request to the kernel's word that all is frozen.",
                              .type = METRIC_HISTOGRAM,
                              .buckets = fast,
                              .n_buckets = ARRAY_SIZE(fast) },
    [STAT_THAW_SECONDS] = { .name = "freeze_agent_thaw_duration_seconds",
                            .help = "From the request to the last write that thaws.",
                            .type = METRIC_HISTOGRAM,
                            .buckets = fast,
                            .n_buckets = ARRAY_SIZE(fast) },
    [STAT_RECLAIM_SECONDS] = { .name = "freeze_agent_reclaim_duration_seconds",
                               .help = "Pushing one pod's memory out to swap.",
                               .type = METRIC_HISTOGRAM,
                               .buckets = slow,
                               .n_buckets = ARRAY_SIZE(slow) },
    [STAT_RECLAIMED_BYTES] = { .name = "freeze_agent_reclaimed_bytes_total",
                               .help = "Memory that left the pods' cgroups by our reclaim.",
                               .type = METRIC_COUNTER },
    [STAT_PREFETCH_SECONDS] = { .name = "freeze_agent_prefetch_duration_seconds",
                                .help = "Bringing one pod's pages back after a thaw.",
                                .type = METRIC_HISTOGRAM,
                                .buckets = slow,
                                .n_buckets = ARRAY_SIZE(slow) },
    [STAT_PREFETCHED_BYTES] = { .name = "freeze_agent_prefetched_bytes_total",
                                .help = "Pages that were asked for before the pods missed them.",
                                .type = METRIC_COUNTER },
    [STAT_WAKE_SECONDS] = { .name = "freeze_agent_wake_duration_seconds",
                            .help = "From the packet that woke a pod to the last write that thaws.",
                            .type = METRIC_HISTOGRAM,
                            .buckets = fast,
                            .n_buckets = ARRAY_SIZE(fast) },
    [STAT_TRIGGER] = { .name = "freeze_agent_trigger",
                       .help = "1 for what tells of packets for frozen pods: bpf, poll or none.",
                       .type = METRIC_GAUGE,
                       .label = "means",
                       .label_values = trigger_means_names,
                       .n_series = TRIGGER_MEANS_N },
    [STAT_DRIFT] = { .name = "freeze_agent_drift_total",
                     .help = "Changes that somebody else made to a frozen pod.",
                     .type = METRIC_COUNTER,
                     .label = "field",
                     .label_values = drift_values,
                     .n_series = STAT_DRIFT_N },
    [STAT_RECONCILED] = { .name = "freeze_agent_reconciled_total",
                          .help = "Records found at the start, by what became of them.",
                          .type = METRIC_COUNTER,
                          .label = "result",
                          .label_values = reconcile_result_names,
                          .n_series = RECONCILE_RESULTS_N },
    [STAT_STORE_ERRORS] = { .name = "freeze_agent_store_errors_total",
                            .help = "Records that could not be written or removed.",
                            .type = METRIC_COUNTER },
    [STAT_SWAP_TOTAL_BYTES] = { .name = "freeze_agent_swap_total_bytes",
                                .help = "Swap of the node.",
                                .type = METRIC_GAUGE },
    [STAT_SWAP_FREE_BYTES] = { .name = "freeze_agent_swap_free_bytes",
                               .help = "Swap of the node that is free.",
                               .type = METRIC_GAUGE },
    [STAT_HTTP_REQUESTS] = { .name = "freeze_agent_http_requests_total",
                             .help = "Requests that were answered, by class of status.",
                             .type = METRIC_COUNTER,
                             .label = "code",
                             .label_values = http_values,
                             .n_series = STAT_HTTP_N },
    [STAT_HTTP_SECONDS] = { .name = "freeze_agent_http_request_duration_seconds",
                            .help = "From the head of a request to its answer.",
                            .type = METRIC_HISTOGRAM,
                            .buckets = fast,
                            .n_buckets = ARRAY_SIZE(fast) },
};
