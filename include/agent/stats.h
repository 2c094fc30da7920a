/* The agent's metrics, declared once; names as they appear in /metrics. */
#pragma once

#include "common/metrics.h"

enum agent_stat {
    STAT_BUILD_INFO,
    STAT_PODS,           /* by enum stat_pods */
    STAT_FREEZES,        /* by enum stat_freeze */
    STAT_THAWS,          /* by enum thaw_cause */
    STAT_FREEZE_SECONDS, /* request to "frozen 1" */
    STAT_THAW_SECONDS,   /* request to the last cgroup.freeze = 0 */
    STAT_RECLAIM_SECONDS,
    STAT_RECLAIMED_BYTES,
    STAT_PREFETCH_SECONDS,
    STAT_PREFETCHED_BYTES,
    STAT_WAKE_SECONDS, /* packet to the last cgroup.freeze = 0 */
    STAT_TRIGGER,      /* by enum trigger_means: what tells of packets */
    STAT_DRIFT,        /* by enum stat_drift */
    STAT_RECONCILED,   /* by enum reconcile_result */
    STAT_STORE_ERRORS,
    STAT_SWAP_TOTAL_BYTES,
    STAT_SWAP_FREE_BYTES,
    STAT_HTTP_REQUESTS, /* by enum stat_http */
    STAT_HTTP_SECONDS,
    STATS_N,
};

enum stat_pods { STAT_PODS_FREEZING, STAT_PODS_FROZEN, STAT_PODS_THAWING, STAT_PODS_N };

enum stat_freeze {
    STAT_FREEZE_OK,
    STAT_FREEZE_REFUSED, /* not found, stale, conflict, refused, busy */
    STAT_FREEZE_TIMEOUT,
    STAT_FREEZE_ERROR,
    STAT_FREEZE_N,
};

/* What somebody else did to a pod while it was frozen. */
enum stat_drift {
    STAT_DRIFT_SWAP_MAX,  /* set memory.swap.max; set back */
    STAT_DRIFT_THAWED,    /* set cgroup.freeze to 0; the rest of the pod follows */
    STAT_DRIFT_CONTAINER, /* a container came or went; the rest of the pod is thawed */
    STAT_DRIFT_N,
};

enum stat_http { STAT_HTTP_2XX, STAT_HTTP_4XX, STAT_HTTP_5XX, STAT_HTTP_N };

extern const struct metric_family stats_families[STATS_N];
