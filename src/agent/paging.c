#include "agent/paging.h"

#include <string.h>

#include "agent/limits.h"
#include "agent/tell.h"
#include "agent/transition.h"
#include "common/log.h"

/* What is left after a good reclaim: below a twentieth, or below what a process costs the kernel.
 */
#define REST_SHARE 20
#define REST_BYTES ((uint64_t)4 << 20)

/* ---- out ---- */

static void finish_reclaim(struct pod *pod, const struct reclaim_result *result);

static void on_reclaimed(const struct reclaim_result *result, void *userdata)
{
    struct pod *pod = userdata;

    pod->reclaim = NULL;
    finish_reclaim(pod, result);
}

static uint64_t memory_now(const struct pod *pod)
{
    uint64_t sum = 0, value;

    for (unsigned i = 0; i < pod->cgroups.record.n_containers; i++)
        if (pod->cgroups.containers[i].fd >= 0 &&
            cgroup_read_value(pod->cgroups.containers[i].fd, "memory.current", &value, NULL) == 0)
            sum += value;
    return sum;
}

static uint64_t memory_before(const struct pod *pod)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < pod->cgroups.record.n_containers; i++)
        sum += pod->cgroups.record.containers[i].memory_before;
    return sum;
}

/* Why so much is left; NULL when there is nothing to explain. */
static const char *explain_rest(struct pod *pod)
{
    uint64_t rest = memory_now(pod);
    char limit[CGROUP_PATH_SIZE];
    struct kernfile_meminfo info;

    if (rest < REST_BYTES || rest < memory_before(pod) / REST_SHARE)
        return NULL;
    if (kernfile_read_meminfo(&info) == 0) {
        if (info.swap_total == 0)
            return "no_swap";
        if (info.swap_free < RECLAIM_CHUNK_MIN)
            return "swap_full";
    }
    pod_find_swap_limit(&pod->cgroups, pod_config(pod)->root, rest, limit);
    if (!*limit)
        return NULL;
    free(pod->reclaim_limit);
    pod->reclaim_limit = strdup(limit);
    return "ancestor_limit";
}

static void finish_reclaim(struct pod *pod, const struct reclaim_result *result)
{
    pod->reclaimed = *result;
    pod->reclaim_reason = result->r < 0 ? "error" : explain_rest(pod);
    if (result->r < 0)
        log_warning_with(FIELDS({ "POD", pod_uid(pod) }), "write memory.reclaim: %s, ignoring",
                         strerror(-result->r));
    pod->reclaim_state = pod->reclaim_reason ? RECLAIM_STOPPED : RECLAIM_DONE;
    tell_duration(pod, STAT_RECLAIM_SECONDS, result->usec);
    metrics_add(pod_config(pod)->metrics, STAT_RECLAIMED_BYTES, 0, (double)result->bytes);
    tell_event(pod, "reclaimed", NULL,
               json_pack("{sI sf ss ss*}", "bytes", (json_int_t)result->bytes, "duration",
                         tell_msec(result->usec), "reclaim",
                         reclaim_state_names[pod->reclaim_state], "reason", pod->reclaim_reason));
    log_info_with(FIELDS({ "POD", pod_uid(pod) }, { "OP", "reclaim" }),
                  "reclaimed %.1f MiB in %.0f ms%s%s", (double)result->bytes / (1 << 20),
                  tell_msec(result->usec), pod->reclaim_reason ? ", stopped: " : "",
                  pod->reclaim_reason ? pod->reclaim_reason : "");
    freezer_answer(pod, FOR_FREEZE, 0, NULL);
}

static unsigned copy_fds(const struct pod *pod, int fds[static POD_CONTAINERS_MAX])
{
    unsigned n = pod->cgroups.record.n_containers;

    for (unsigned i = 0; i < n; i++)
        fds[i] = pod->cgroups.containers[i].fd;
    return n;
}

static struct prefetch_pod prefetch_of(const struct pod *pod, int fds[static POD_CONTAINERS_MAX])
{
    return (struct prefetch_pod){
        .uid = pod_uid(pod), .fds = fds, .n_fds = copy_fds(pod, fds), .pod_fd = pod->cgroups.pod_fd
    };
}

static void begin_reclaim(void *userdata)
{
    struct pod *pod = userdata;
    const struct freezer_config *config = pod_config(pod);
    struct reclaim_config reclaim = { .pool = config->reclaimers,
                                      .chunk_max = config->reclaim_chunk,
                                      .done = on_reclaimed,
                                      .userdata = pod };
    struct error error = ERROR_INIT;
    int fds[POD_CONTAINERS_MAX];
    unsigned n = copy_fds(pod, fds);

    pod->paged_out = true;
    if (reclaim_start(&pod->reclaim, &reclaim, fds, n, &error) < 0) {
        log_warning_with(FIELDS({ "POD", pod_uid(pod) }), "%s, ignoring", error.msg);
        pod->reclaim_state = RECLAIM_STOPPED;
        pod->reclaim_reason = "error";
        freezer_answer(pod, FOR_FREEZE, 0, NULL);
    }
}

/* What a wake will need is noted first: afterwards the kernel cannot tell. */
void paging_out(struct pod *pod)
{
    const struct freezer_config *config = pod_config(pod);
    int fds[POD_CONTAINERS_MAX];
    struct prefetch_pod prefetch = prefetch_of(pod, fds);

    if (!cgroup_root_has_memory(config->root)) {
        pod->reclaim_state = RECLAIM_STOPPED;
        pod->reclaim_reason = "no_memory_controller";
        return;
    }
    pod->reclaim_state = RECLAIM_RUNNING;
    if (config->prefetcher)
        prefetch_note(config->prefetcher, &prefetch, begin_reclaim, pod);
    else
        begin_reclaim(pod);
}

/* Now, or in a while: a pod that is woken before that pays nothing at all. */
uint64_t paging_plan(struct pod *pod)
{
    const struct record *record = &pod->cgroups.record;
    uint64_t due = record->frozen_at_usec + record->reclaim_after * USEC_PER_SEC;
    uint64_t now = events_now_usec();

    if (record->reclaim == RECLAIM_OFF)
        return 0;
    if (due <= now) {
        paging_out(pod);
        return 0;
    }
    pod->reclaim_state = RECLAIM_WAITING;
    return due - now;
}

/* ---- in ---- */

void paging_stop(struct pod *pod)
{
    if (pod_config(pod)->prefetcher)
        prefetch_stop(pod_config(pod)->prefetcher, pod_uid(pod));
    pod->reclaim = reclaim_stop(pod->reclaim, &pod->reclaimed);
    if (pod->reclaim_state == RECLAIM_RUNNING || pod->reclaim_state == RECLAIM_WAITING) {
        pod->reclaim_state = RECLAIM_STOPPED;
        pod->reclaim_reason = "thawed";
    }
}

void paging_in(struct pod *pod)
{
    struct error error = ERROR_INIT;
    int fds[POD_CONTAINERS_MAX];
    struct prefetch_pod prefetch = prefetch_of(pod, fds);

    if (!pod_config(pod)->prefetcher || !pod->paged_out)
        return;
    if (prefetch_start(pod_config(pod)->prefetcher, &prefetch, &error) < 0)
        log_warning_with(FIELDS({ "POD", pod_uid(pod) }), "%s, ignoring", error.msg);
}

void paging_forget(struct pod *pod)
{
    paging_stop(pod);
    if (pod_config(pod)->prefetcher)
        prefetch_forget(pod_config(pod)->prefetcher, pod_uid(pod));
}
