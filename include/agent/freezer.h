/* The state machine of each pod under our care.
 *
 *            freeze                    record durable, frozen 1
 *   running --------> POD_FREEZING -------------------------> POD_FROZEN
 *      ^                   | timeout, failure, thaw                | thaw, drift, gone
 *      |                   v                                       v
 *      +------------- POD_THAWING <--------------------------------+
 *    record removed
 *
 * A pod is in the table exactly as long as it has (or is about to have) a record; one that is not
 * is running as far as we are concerned. Requests are answered through waiters; identical ones
 * join. Thaw always wins: it is carried out in the call itself, whatever else is going on, and only
 * then are others told.
 *
 * Loop thread only. What blocks goes to two pools: `disk` for records, so that no freeze waits for
 * a reclaim, and `reclaimers`. */
#pragma once

#include <stdbool.h>

#include <systemd/sd-event.h>
#include <uthash.h>

#include "agent/events.h"
#include "agent/pod.h"
#include "agent/prefetch.h"
#include "agent/reclaim.h"
#include "agent/stats.h"
#include "agent/store.h"
#include "agent/waker.h"
#include "common/worker.h"

enum freezer_outcome {
    FREEZER_E_NOT_FOUND = 1,
    FREEZER_E_STALE,    /* a higher generation was seen for this pod */
    FREEZER_E_CONFLICT, /* thawed meanwhile, changed meanwhile, or frozen by somebody else */
    FREEZER_E_REFUSED,  /* error.msg says why, freezer_waiter.reason is a word for machines */
    FREEZER_E_TIMEOUT,  /* did not become frozen in time; rolled back */
    FREEZER_E_BUSY,     /* a limit of ours */
    FREEZER_E_N,
};

enum pod_state { POD_FREEZING, POD_FROZEN, POD_THAWING, POD_RUNNING };
extern const char *const pod_state_names[];

enum reclaim_state {
    RECLAIM_NONE,
    RECLAIM_WAITING,
    RECLAIM_RUNNING,
    RECLAIM_DONE,
    RECLAIM_STOPPED
};
extern const char *const reclaim_state_names[];

/* Why a pod left the frozen state. */
enum thaw_cause {
    THAW_REQUEST,
    THAW_ROLLBACK, /* the freeze failed */
    THAW_DRIFT,    /* somebody else thawed a part of it */
    THAW_CHANGED,  /* a container came or went */
    THAW_PACKET,   /* somebody wants the app: a packet came */
    THAW_GROUP,    /* a packet came for another pod of its group */
    THAW_CAUSES_N,
};
extern const char *const thaw_cause_names[];

struct freezer;
struct pod;

struct freeze_request {
    char pod_uid[POD_UID_SIZE];
    char group[GROUP_SIZE];
    uint64_t generation; /* 0: none */
    enum reclaim_mode reclaim;
    uint64_t reclaim_after; /* seconds; with RECLAIM_BACKGROUND only */
    enum wake_on wake_on;
};

/* Somebody who wants to know how it went. Embedded in its owner, who keeps it until `done` was
 * called or freezer_forget. */
struct freezer_waiter {
    /* r as of struct error; pod is NULL when it is not (or no longer) in the table. Called exactly
     * once, possibly before freezer_freeze or freezer_thaw returns. */
    void (*done)(struct freezer_waiter *waiter, int r, bool already, const struct pod *pod,
                 const struct error *error);
    const char *reason; /* of FREEZER_E_REFUSED */

    /* the freezer's */
    struct freezer_waiter *next, **link;
    struct freeze_request request;
    enum { WAITS_FOR_FROZEN, WAITS_FOR_RECLAIM, WAITS_FOR_THAWED, WAITS_TO_FREEZE } wants;
    bool already;
};

struct pod {
    UT_hash_handle hh;
    uint64_t serial; /* counts up; of the order in the table */
    struct freezer *freezer;
    enum pod_state state;
    struct pod_cgroups cgroups;

    enum reclaim_state reclaim_state;
    const char *reclaim_reason; /* NULL, or why it stopped */
    char *reclaim_limit;        /* NULL, or the ancestor that forbids swap */
    struct reclaim *reclaim;
    struct reclaim_result reclaimed;
    bool paged_out; /* reclaim has begun: something may be in swap */

    uint64_t requested_usec; /* CLOCK_MONOTONIC, of the freeze request */
    uint64_t freeze_usec;    /* from then to "frozen 1" */
    bool adopted;            /* from a record of an earlier run */
    bool touched;            /* something of its cgroups was (or may have been) written */
    unsigned char heals[POD_CONTAINERS_MAX]; /* of memory.swap.max */

    struct freezer_waiter *waiters;
    sd_event_source *timer; /* the next look while freezing, the next try while thawing */
    uint64_t delay_usec;
    struct watch *watches; /* agent/watch.h */
    struct waker_arm *arm; /* agent/waker.h */

    struct worker_job disk_job; /* one at a time */
    bool disk_busy;
    int disk_result;
    struct error disk_error;
    char *record_text;
    size_t record_len;

    /* while thawing */
    enum thaw_cause cause;
    int leave_result; /* of those who wait for a freeze */
    struct error leave_error;
    struct error thaw_error; /* why it is not thawed yet */
    bool thawed, restored;   /* every container; every memory.swap.max */
    bool complained;         /* the log has heard of what keeps failing */
};

struct freezer_config {
    sd_event *event;
    const struct cgroup_root *root;
    struct layout *layout;
    struct store *store;
    struct worker_pool *disk;
    struct worker_pool *reclaimers;
    struct worker_pool *lookers; /* at sockets; one thread */
    struct events *events;
    struct metrics *metrics;
    struct prefetcher *prefetcher; /* NULL: pages come back as they are touched */
    const struct waker_config *waker;
    unsigned wakes_max; /* by packets, per pod and minute; 0: no limit */
    uint64_t freeze_timeout_usec;
    uint64_t reclaim_chunk;
};

int freezer_open(struct freezer **ret, const struct freezer_config *config,
                 struct error *error) MUST_CHECK;

/* Thaws nothing and forgets everything; waiters are not called. Stop the pools before, and
 * close them after. */
struct freezer *freezer_close(struct freezer *freezer);

void freezer_freeze(struct freezer *freezer, const struct freeze_request *request,
                    struct freezer_waiter *waiter);
/* generation 0: none. A thaw is never refused for its generation, but it counts. */
void freezer_thaw(struct freezer *freezer, const char *uid, uint64_t generation,
                  struct freezer_waiter *waiter);

/* The owner no longer wants to be told. Harmless when it was. */
void freezer_forget(struct freezer_waiter *waiter);

/* As pod_discover, of a pod that is not in the table; looks for the roots of new kubelets, too,
 * when there is none. */
int freezer_discover(struct freezer *freezer, const char *uid, struct pod_cgroups *ret,
                     struct error *error) MUST_CHECK;
/* What its outcome is among those of the freezer, and the word for machines (or NULL). */
int freezer_outcome_of(int pod_outcome, const char **ret_reason);

/* The pod in the table, or NULL. */
struct pod *freezer_find(struct freezer *freezer, const char *uid);
/* In the order in which they came; NULL begins. Safe while pods come and go between calls only when
 * the cursor's pod is still there: hold a UID, not a pointer, across rounds of the loop. */
struct pod *freezer_next(struct freezer *freezer, struct pod *pod);
/* The one after the pod of that UID and serial, also when that has gone; serial 0 begins. For a
 * walk that rests between rounds of the loop. */
struct pod *freezer_after(struct freezer *freezer, const char *uid, uint64_t serial);
unsigned freezer_count(const struct freezer *freezer);

/* The node is short of memory: reclaim that was put off begins now. */
void freezer_pressure(struct freezer *freezer);

/* Sets the gauges of the metrics: pods by state, the node's swap. */
void freezer_gauge(struct freezer *freezer);

/* A packet came for this pod: it runs at once, and then the rest of its group. */
void freezer_wake(struct pod *pod, const struct trigger_event *packet);

const struct freezer_config *freezer_config(const struct freezer *freezer);
