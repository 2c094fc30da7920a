#include "agent/freezer.h"

#include <string.h>

#include "agent/history.h"
#include "agent/limits.h"
#include "agent/transition.h"
#include "agent/watch.h"
#include "common/log.h"
#include "common/loop.h"

const char *const pod_state_names[] = { [POD_FREEZING] = "freezing",
                                        [POD_FROZEN] = "frozen",
                                        [POD_THAWING] = "thawing",
                                        [POD_RUNNING] = "running" };

const char *const reclaim_state_names[] = { [RECLAIM_NONE] = "none",
                                            [RECLAIM_WAITING] = "waiting",
                                            [RECLAIM_RUNNING] = "running",
                                            [RECLAIM_DONE] = "done",
                                            [RECLAIM_STOPPED] = "stopped" };

const char *const thaw_cause_names[] = {
    [THAW_REQUEST] = "request", [THAW_ROLLBACK] = "rollback", [THAW_DRIFT] = "drift",
    [THAW_CHANGED] = "changed", [THAW_PACKET] = "packet",     [THAW_GROUP] = "group"
};

static_assert(ARRAY_SIZE(thaw_cause_names) == THAW_CAUSES_N, "every cause has a name");

/* A pod that was not found makes us look for new kubelet roots, at most this often. */
#define REFRESH_USEC (2 * USEC_PER_SEC)

struct freezer {
    struct freezer_config config;
    struct history *history;
    struct waker *waker;
    struct watcher *watcher;
    struct pod *pods;
    uint64_t serial; /* of the newest */
    char boot_id[40];
    uint64_t refresh_usec; /* the earliest time of the next search for roots */
};

/* ---- the object ---- */

void freezer_pressure(struct freezer *freezer)
{
    for (struct pod *pod = freezer->pods; pod; pod = pod->hh.next)
        transition_reclaim(pod);
}

int freezer_open(struct freezer **ret, const struct freezer_config *config, struct error *error)
{
    struct freezer *freezer = calloc(1, sizeof *freezer);

    if (!freezer)
        return error_set(error, ENOMEM, "open the freezer");
    freezer->config = *config;
    int r = record_boot_id(freezer->boot_id, error);
    if (r == 0)
        r = history_open(&freezer->history, HISTORY_MAX, error);
    if (r == 0)
        r = watcher_open(&freezer->watcher, freezer, error);
    if (r == 0)
        r = waker_open(&freezer->waker, freezer, config->waker, error);
    if (r < 0) {
        freezer_close(freezer);
        return r;
    }
    *ret = freezer;
    return 0;
}

static void pod_free(struct pod *pod)
{
    struct reclaim_result ignored;

    HASH_DEL(pod->freezer->pods, pod);
    watcher_forget(pod->freezer->watcher, pod);
    waker_disarm(pod);
    pod->reclaim = reclaim_stop(pod->reclaim, &ignored);
    sd_event_source_disable_unref(pod->timer);
    pod_clear(&pod->cgroups);
    free(pod->record_text);
    free(pod->reclaim_limit);
    free(pod);
}

struct freezer *freezer_close(struct freezer *freezer)
{
    struct pod *pod, *next;

    if (!freezer)
        return NULL;
    HASH_ITER(hh, freezer->pods, pod, next)
    pod_free(pod);
    waker_close(freezer->waker);
    watcher_close(freezer->watcher);
    history_close(freezer->history);
    free(freezer);
    return NULL;
}

const struct freezer_config *freezer_config(const struct freezer *freezer)
{
    return &freezer->config;
}

struct watcher *freezer_watcher(const struct freezer *freezer)
{
    return freezer->watcher;
}

struct waker *freezer_waker(const struct freezer *freezer)
{
    return freezer->waker;
}

/* ---- the table ---- */

struct pod *freezer_find(struct freezer *freezer, const char *uid)
{
    struct pod *pod;

    HASH_FIND(hh, freezer->pods, uid, strlen(uid), pod);
    return pod;
}

struct pod *freezer_next(struct freezer *freezer, struct pod *pod)
{
    return pod ? pod->hh.next : freezer->pods;
}

struct pod *freezer_after(struct freezer *freezer, const char *uid, uint64_t serial)
{
    struct pod *pod = freezer_find(freezer, uid);

    if (pod && pod->serial == serial)
        return pod->hh.next;
    for (pod = freezer->pods; pod && pod->serial <= serial; pod = pod->hh.next)
        ;
    return pod;
}

unsigned freezer_count(const struct freezer *freezer)
{
    return HASH_COUNT(freezer->pods);
}

struct pod *freezer_insert(struct freezer *freezer, struct pod_cgroups *cgroups)
{
    struct pod *pod = calloc(1, sizeof *pod);

    if (!pod)
        return NULL;
    pod->freezer = freezer;
    pod->serial = ++freezer->serial;
    pod->cgroups = *cgroups;
    *cgroups = (struct pod_cgroups){ .pod_fd = -1 };
    pod->requested_usec = loop_now_usec();
    history_see_generation(freezer->history, pod->cgroups.record.pod_uid,
                           pod->cgroups.record.generation);
    HASH_ADD_KEYPTR(hh, freezer->pods, pod->cgroups.record.pod_uid,
                    strlen(pod->cgroups.record.pod_uid), pod);
    return pod;
}

void freezer_gauge(struct freezer *freezer)
{
    static const enum stat_pods series[] = { [POD_FREEZING] = STAT_PODS_FREEZING,
                                             [POD_FROZEN] = STAT_PODS_FROZEN,
                                             [POD_THAWING] = STAT_PODS_THAWING };
    struct metrics *metrics = freezer->config.metrics;
    unsigned n[STAT_PODS_N] = { 0 };
    struct kernfile_meminfo info;

    for (const struct pod *pod = freezer->pods; pod; pod = pod->hh.next)
        if (pod->state != POD_RUNNING)
            n[series[pod->state]]++;
    for (unsigned i = 0; i < STAT_PODS_N; i++)
        metrics_set(metrics, STAT_PODS, i, n[i]);
    if (kernfile_read_meminfo(&info) == 0) {
        metrics_set(metrics, STAT_SWAP_TOTAL_BYTES, 0, (double)info.swap_total);
        metrics_set(metrics, STAT_SWAP_FREE_BYTES, 0, (double)info.swap_free);
    }
}

/* ---- waiters ---- */

static void link_waiter(struct pod *pod, struct freezer_waiter *waiter, int wants)
{
    struct freezer_waiter **end = &pod->waiters;

    while (*end)
        end = &(*end)->next;
    waiter->wants = wants;
    waiter->next = NULL;
    waiter->link = end;
    *end = waiter;
}

static void unlink_waiter(struct freezer_waiter *waiter)
{
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->link = NULL;
}

void freezer_forget(struct freezer_waiter *waiter)
{
    if (waiter->link)
        unlink_waiter(waiter);
}

static unsigned count_waiters(const struct pod *pod)
{
    unsigned n = 0;

    for (const struct freezer_waiter *w = pod->waiters; w; w = w->next)
        n++;
    return n;
}

static struct freezer_waiter *find_waiter(struct pod *pod, unsigned mask)
{
    for (struct freezer_waiter *w = pod->waiters; w; w = w->next)
        if (mask & WAITERS(w->wants))
            return w;
    return NULL;
}

/* A callback may forget other waiters: begin anew after each. */
void freezer_answer(struct pod *pod, unsigned mask, int r, const struct error *error)
{
    struct freezer_waiter *waiter;

    while ((waiter = find_waiter(pod, mask))) {
        unlink_waiter(waiter);
        waiter->done(waiter, r, waiter->already, pod, error);
    }
}

static void reject(struct freezer_waiter *waiter, int r, const struct error *error)
{
    waiter->done(waiter, r, false, NULL, error);
}

/* Waits for the pod, unless too many do. A thaw has been carried out by then, and is always told
 * how it went. */
static void join(struct pod *pod, struct freezer_waiter *waiter, int wants, bool already)
{
    if (wants != WAITS_FOR_THAWED && count_waiters(pod) >= POD_WAITERS_MAX) {
        struct error error = ERROR_INIT;
        int r = error_outcome(&error, FREEZER_E_BUSY, "too many requests wait for this pod");
        reject(waiter, r, &error);
        return;
    }
    waiter->already = already;
    link_waiter(pod, waiter, wants);
}

void freezer_drop(struct pod *pod)
{
    struct freezer *freezer = pod->freezer;
    struct freezer_waiter *waiter, *again = NULL, **end = &again;

    while ((waiter = find_waiter(pod, WAITERS(WAITS_TO_FREEZE)))) {
        unlink_waiter(waiter);
        waiter->next = NULL;
        *end = waiter;
        end = &waiter->next;
    }
    pod_free(pod);
    while ((waiter = again)) {
        again = waiter->next;
        freezer_freeze(freezer, &waiter->request, waiter);
    }
}

/* ---- looking a pod up ---- */

int freezer_discover(struct freezer *freezer, const char *uid, struct pod_cgroups *ret,
                     struct error *error)
{
    int r = pod_discover(ret, freezer->config.layout, uid, error);

    if (r != POD_E_NOT_FOUND || loop_now_usec() < freezer->refresh_usec)
        return r;
    freezer->refresh_usec = loop_now_usec() + REFRESH_USEC;
    if (layout_refresh(freezer->config.layout, NULL) < 0)
        return r;
    return pod_discover(ret, freezer->config.layout, uid, error);
}

static bool is_foreign(const struct pod_cgroups *cgroups)
{
    for (unsigned i = 0; i < cgroups->record.n_containers; i++)
        if (cgroups->containers[i].foreign)
            return true;
    return false;
}

static const struct {
    int outcome;
    const char *reason;
} refusals[] = {
    [POD_E_NOT_FOUND] = { FREEZER_E_NOT_FOUND, NULL },
    [POD_E_EMPTY] = { FREEZER_E_REFUSED, "no_containers" },
    [POD_E_TOO_MANY] = { FREEZER_E_REFUSED, "too_many_cgroups" },
    [POD_E_SELF] = { FREEZER_E_REFUSED, "own_pod" },
    [POD_E_CHANGED] = { FREEZER_E_CONFLICT, NULL },
};

int freezer_outcome_of(int r, const char **ret_reason)
{
    *ret_reason = r > 0 ? refusals[r].reason : NULL;
    return r > 0 ? refusals[r].outcome : r;
}

/* Packets wake it so often that freezing it costs more than it saves. */
static bool is_restless(struct freezer *freezer, struct freezer_waiter *waiter, struct error *error)
{
    unsigned max = freezer->config.wakes_max;
    unsigned wakes = history_wakes(freezer->history, waiter->request.pod_uid, loop_now_usec());

    if (max == 0 || wakes < max)
        return false;
    waiter->reason = "wake_limit";
    error_outcome(error, FREEZER_E_REFUSED, "packets woke the pod %u times within a minute", wakes);
    return true;
}

/* 0 and a pod that may be frozen, or an outcome of the freezer. */
static int discover_freezable(struct freezer *freezer, struct freezer_waiter *waiter,
                              struct pod_cgroups *ret, struct error *error)
{
    if (is_restless(freezer, waiter, error))
        return FREEZER_E_REFUSED;
    int r = freezer_discover(freezer, waiter->request.pod_uid, ret, error);
    if (r == POD_E_EMPTY)
        pod_clear(ret);
    if (r > 0)
        return freezer_outcome_of(r, &waiter->reason);
    if (r == 0 && is_foreign(ret)) {
        pod_clear(ret);
        return error_outcome(error, FREEZER_E_CONFLICT, "the pod was frozen by somebody else");
    }
    return r;
}

/* ---- freeze ---- */

enum stat_freeze freezer_failure(int r)
{
    return r == FREEZER_E_TIMEOUT ? STAT_FREEZE_TIMEOUT
           : r > 0                ? STAT_FREEZE_REFUSED
                                  : STAT_FREEZE_ERROR;
}

/* A freeze that does not even begin. */
static void refuse(struct freezer *freezer, struct freezer_waiter *waiter, int r,
                   const struct error *error)
{
    metrics_add(freezer->config.metrics, STAT_FREEZES, freezer_failure(r), 1);
    reject(waiter, r, error);
}

static void begin(struct freezer *freezer, struct freezer_waiter *waiter)
{
    const struct freeze_request *request = &waiter->request;
    struct pod_cgroups cgroups;
    struct error error = ERROR_INIT;

    int r = freezer_count(freezer) >= PODS_MAX
                ? error_outcome(&error, FREEZER_E_BUSY, "too many pods are frozen on this node")
                : discover_freezable(freezer, waiter, &cgroups, &error);
    if (r != 0) {
        refuse(freezer, waiter, r, &error);
        return;
    }
    struct record *record = &cgroups.record;
    strcpy(record->boot_id, freezer->boot_id);
    strcpy(record->group, request->group);
    record->generation = request->generation;
    record->reclaim = request->reclaim;
    record->reclaim_after = request->reclaim_after;
    record->wake_on = request->wake_on;
    record->frozen_at_usec = events_now_usec();

    struct pod *pod = freezer_insert(freezer, &cgroups);
    if (!pod) {
        pod_clear(&cgroups);
        r = error_outcome(&error, FREEZER_E_BUSY, "out of memory");
        refuse(freezer, waiter, r, &error);
        return;
    }
    join(pod, waiter, request->reclaim == RECLAIM_WAIT ? WAITS_FOR_RECLAIM : WAITS_FOR_FROZEN,
         false);
    transition_begin(pod);
}

static void freeze_known(struct pod *pod, struct freezer_waiter *waiter)
{
    bool wait = waiter->request.reclaim == RECLAIM_WAIT;

    if (pod->state == POD_FROZEN)
        transition_check(pod); /* the cgroup is the truth; this may thaw the rest */
    if (transition_is_leaving(pod))
        join(pod, waiter, WAITS_TO_FREEZE, false);
    else if (pod->state == POD_FREEZING || (wait && pod->reclaim_state == RECLAIM_RUNNING))
        join(pod, waiter, wait ? WAITS_FOR_RECLAIM : WAITS_FOR_FROZEN, true);
    else
        waiter->done(waiter, 0, true, pod, NULL);
}

void freezer_freeze(struct freezer *freezer, const struct freeze_request *request,
                    struct freezer_waiter *waiter)
{
    uint64_t seen = history_generation(freezer->history, request->pod_uid);
    struct pod *pod = freezer_find(freezer, request->pod_uid);

    waiter->request = *request;
    waiter->link = NULL;
    if (request->generation && request->generation < seen) {
        struct error error = ERROR_INIT;
        int r = error_outcome(&error, FREEZER_E_STALE, "generation %llu was seen, this is %llu",
                              (unsigned long long)seen, (unsigned long long)request->generation);
        refuse(freezer, waiter, r, &error);
        return;
    }
    history_see_generation(freezer->history, request->pod_uid, request->generation);
    if (pod)
        freeze_known(pod, waiter);
    else
        begin(freezer, waiter);
}

/* ---- thaw ---- */

static void thaw_unknown(struct freezer *freezer, const char *uid, struct freezer_waiter *waiter)
{
    struct pod_cgroups cgroups = { .pod_fd = -1 };
    struct error error = ERROR_INIT;
    int r = freezer_discover(freezer, uid, &cgroups, &error);

    if (r == POD_E_NOT_FOUND) {
        reject(waiter, FREEZER_E_NOT_FOUND, &error);
        return;
    }
    if (r == 0 && is_foreign(&cgroups))
        r = error_outcome(&error, FREEZER_E_CONFLICT,
                          "the pod was frozen by somebody else, and is left alone");
    else if (r > 0)
        r = 0; /* whatever keeps us from freezing it, it runs */
    pod_clear(&cgroups);
    waiter->done(waiter, r, r == 0, NULL, &error);
}

void freezer_thaw(struct freezer *freezer, const char *uid, uint64_t generation,
                  struct freezer_waiter *waiter)
{
    struct pod *pod = freezer_find(freezer, uid);
    struct error error = ERROR_INIT;

    waiter->link = NULL;
    history_see_generation(freezer->history, uid, generation);
    if (!pod) {
        thaw_unknown(freezer, uid, waiter);
        return;
    }
    int r = error_outcome(&error, FREEZER_E_CONFLICT, "the pod was thawed meanwhile");
    bool already = transition_is_leaving(pod) && pod->thawed;
    transition_leave(pod, THAW_REQUEST, r, &error);
    freezer_answer(pod, WAITERS(WAITS_TO_FREEZE), r, &error);
    join(pod, waiter, WAITS_FOR_THAWED, already);
    transition_hurry(pod);
}

/* ---- wake ---- */

/* The rest of the group on this node: thawing never takes a pod out of the table at once, so that
 * the walk is safe. */
static void wake_group(struct pod *woken)
{
    const char *group = woken->cgroups.record.group;
    struct error error = ERROR_INIT;
    int r = error_outcome(&error, FREEZER_E_CONFLICT, "a packet came for a pod of its group");

    if (!*group)
        return;
    for (struct pod *pod = woken->freezer->pods; pod; pod = pod->hh.next)
        if (pod != woken && strcmp(pod->cgroups.record.group, group) == 0)
            transition_leave(pod, THAW_GROUP, r, &error);
}

void freezer_wake(struct pod *pod, const struct trigger_event *packet)
{
    if (transition_is_leaving(pod))
        return;
    history_count_wake(pod->freezer->history, pod->cgroups.record.pod_uid, loop_now_usec());
    transition_wake(pod, packet);
    wake_group(pod);
}
