#include "agent/transition.h"

#include <string.h>

#include "agent/limits.h"
#include "agent/watch.h"
#include "common/log.h"
#include "common/loop.h"

/* The kernel notifies of "frozen 1" at most every 10 ms, but a sleeping task is frozen within a
 * tenth of one: so look soon, then less and less often. */
#define LOOK_FIRST_USEC ((uint64_t)50)
#define LOOK_MAX_USEC   (10 * USEC_PER_MSEC)

/* A thaw that could not be completed is tried again, at first soon. */
#define RETRY_FIRST_USEC (20 * USEC_PER_MSEC)
#define RETRY_MAX_USEC   (5 * USEC_PER_SEC)

/* What is left after a good reclaim: below a twentieth, or below what a process costs the kernel.
 */
#define REST_SHARE 20
#define REST_BYTES ((uint64_t)4 << 20)

#define FOR_FROZEN WAITERS(WAITS_FOR_FROZEN)
#define FOR_FREEZE (WAITERS(WAITS_FOR_FROZEN) | WAITERS(WAITS_FOR_RECLAIM))
#define FOR_THAWED WAITERS(WAITS_FOR_THAWED)

static void leave_step(struct pod *pod);

static const struct freezer_config *config_of(const struct pod *pod)
{
    return freezer_config(pod->freezer);
}

static const char *uid_of(const struct pod *pod)
{
    return pod->cgroups.record.pod_uid;
}

/* ---- what others are told ---- */

static void emit(const struct pod *pod, const char *type, const char *cause, json_t *more)
{
    const char *group = pod->cgroups.record.group;
    json_t *event = json_pack("{ss ss ss* ss*}", "type", type, "pod_uid", uid_of(pod), "group",
                              *group ? group : NULL, "cause", cause);

    if (event && more)
        json_object_update(event, more);
    json_decref(more);
    if (event)
        events_emit(config_of(pod)->events, event);
}

static void count(const struct pod *pod, enum agent_stat stat, unsigned series)
{
    metrics_add(config_of(pod)->metrics, stat, series, 1);
}

static void observe(const struct pod *pod, enum agent_stat stat, uint64_t usec)
{
    metrics_observe(config_of(pod)->metrics, stat, 0, (double)usec / USEC_PER_SEC);
}

static double to_msec(uint64_t usec)
{
    return (double)usec / USEC_PER_MSEC;
}

/* ---- the pod's timer ---- */

static void look(struct pod *pod);
static void on_leave_timer(struct pod *pod);

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct pod *pod = userdata;

    (void)source;
    (void)usec;
    if (pod->state == POD_FREEZING)
        look(pod);
    else if (pod->state == POD_FROZEN)
        transition_reclaim(pod);
    else if (pod->state == POD_THAWING)
        on_leave_timer(pod);
    return 0;
}

static void set_timer(struct pod *pod, uint64_t usec)
{
    int r = loop_timer(config_of(pod)->event, &pod->timer, usec, on_timer, pod);

    if (r < 0)
        log_error_with(FIELDS({ "POD", uid_of(pod) }), "cannot set a timer: %s", strerror(-r));
}

/* ---- the record ---- */

static void submit_disk_job(struct pod *pod, void (*run)(struct worker_job *),
                            void (*done)(struct worker_job *))
{
    pod->disk_busy = true;
    pod->disk_job = (struct worker_job){ .run = run, .done = done };
    worker_submit(config_of(pod)->disk, &pod->disk_job);
}

/* Then everything that may block is behind us: the trigger is armed before the freeze, so that no
 * packet falls between. */
static void write_record(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_result = store_put_text(config_of(pod)->store, uid_of(pod), pod->record_text,
                                      pod->record_len, &pod->disk_error);
    if (pod->disk_result == 0)
        waker_attach(pod);
}

static void remove_record(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_result = store_remove(config_of(pod)->store, uid_of(pod), &pod->disk_error);
}

static void complain_about_store(struct pod *pod, const char *what)
{
    count(pod, STAT_STORE_ERRORS, 0);
    log_error_with(FIELDS({ "POD", uid_of(pod) }), "%s: %s", what, pod->disk_error.msg);
}

/* ---- into the frozen state ---- */

static void roll_back(struct pod *pod, int result, const struct error *error)
{
    log_warning_with(FIELDS({ "POD", uid_of(pod) }, { "OP", "freeze" }), "not frozen: %s",
                     error->msg);
    transition_leave(pod, THAW_ROLLBACK, result, error);
}

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
    pod_find_swap_limit(&pod->cgroups, config_of(pod)->root, rest, limit);
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
        log_warning_with(FIELDS({ "POD", uid_of(pod) }), "write memory.reclaim: %s, ignoring",
                         strerror(-result->r));
    pod->reclaim_state = pod->reclaim_reason ? RECLAIM_STOPPED : RECLAIM_DONE;
    observe(pod, STAT_RECLAIM_SECONDS, result->usec);
    metrics_add(config_of(pod)->metrics, STAT_RECLAIMED_BYTES, 0, (double)result->bytes);
    emit(pod, "reclaimed", NULL,
         json_pack("{sI sf ss ss*}", "bytes", (json_int_t)result->bytes, "duration",
                   to_msec(result->usec), "reclaim", reclaim_state_names[pod->reclaim_state],
                   "reason", pod->reclaim_reason));
    log_info_with(FIELDS({ "POD", uid_of(pod) }, { "OP", "reclaim" }),
                  "reclaimed %.1f MiB in %.0f ms%s%s", (double)result->bytes / (1 << 20),
                  to_msec(result->usec), pod->reclaim_reason ? ", stopped: " : "",
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
        .uid = uid_of(pod), .fds = fds, .n_fds = copy_fds(pod, fds), .pod_fd = pod->cgroups.pod_fd
    };
}

static void begin_reclaim(void *userdata)
{
    struct pod *pod = userdata;
    const struct freezer_config *config = config_of(pod);
    struct reclaim_config reclaim = { .pool = config->reclaimers,
                                      .chunk_max = config->reclaim_chunk,
                                      .done = on_reclaimed,
                                      .userdata = pod };
    struct error error = ERROR_INIT;
    int fds[POD_CONTAINERS_MAX];
    unsigned n = copy_fds(pod, fds);

    if (reclaim_start(&pod->reclaim, &reclaim, fds, n, &error) < 0) {
        log_warning_with(FIELDS({ "POD", uid_of(pod) }), "%s, ignoring", error.msg);
        pod->reclaim_state = RECLAIM_STOPPED;
        pod->reclaim_reason = "error";
        freezer_answer(pod, FOR_FREEZE, 0, NULL);
    }
}

/* What a wake will need is noted first: afterwards the kernel cannot tell. */
static void start_reclaim(struct pod *pod)
{
    const struct freezer_config *config = config_of(pod);
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

void transition_reclaim(struct pod *pod)
{
    if (pod->state == POD_FROZEN && pod->reclaim_state == RECLAIM_WAITING)
        start_reclaim(pod);
}

/* Now, or in a while: a pod that is woken before that pays nothing at all. */
static void plan_reclaim(struct pod *pod)
{
    const struct record *record = &pod->cgroups.record;
    uint64_t due = record->frozen_at_usec + record->reclaim_after * USEC_PER_SEC;
    uint64_t now = events_now_usec();

    if (record->reclaim == RECLAIM_OFF)
        return;
    if (due <= now) {
        start_reclaim(pod);
        return;
    }
    pod->reclaim_state = RECLAIM_WAITING;
    set_timer(pod, due - now);
}

static void become_frozen(struct pod *pod)
{
    pod->state = POD_FROZEN;
    pod->freeze_usec = loop_now_usec() - pod->requested_usec;
    if (!pod->adopted) {
        count(pod, STAT_FREEZES, STAT_FREEZE_OK);
        observe(pod, STAT_FREEZE_SECONDS, pod->freeze_usec);
        emit(pod, "frozen", NULL, json_pack("{sf}", "duration", to_msec(pod->freeze_usec)));
        log_info_with(FIELDS({ "POD", uid_of(pod) }, { "OP", "freeze" }), "frozen in %.2f ms",
                      to_msec(pod->freeze_usec));
    }
    plan_reclaim(pod);
    waker_look(pod);
    freezer_answer(pod, pod->reclaim_state == RECLAIM_RUNNING ? FOR_FROZEN : FOR_FREEZE, 0, NULL);
}

/* All containers of a pod or none: one may have started since we looked. */
static int check_complete(struct pod *pod, const struct pod_truth *truth, struct error *error)
{
    bool stranger = false;

    if (truth->requested < pod->cgroups.record.n_containers)
        return error_outcome(error, FREEZER_E_CONFLICT, "a container of the pod went away");
    int r = pod_find_stranger(&pod->cgroups, &stranger, error);
    if (r == 0 && stranger)
        return error_outcome(error, FREEZER_E_CONFLICT, "a container of the pod has started");
    return r;
}

static bool is_overdue(const struct pod *pod)
{
    return loop_now_usec() - pod->requested_usec >= config_of(pod)->freeze_timeout_usec;
}

/* Is it frozen yet? */
static void look(struct pod *pod)
{
    struct error error = ERROR_INIT;
    struct pod_truth truth;
    int r = pod_read_truth(&pod->cgroups, &truth, &error);

    if (r == 0 && truth.frozen < truth.present && !is_overdue(pod)) {
        pod->delay_usec = pod->delay_usec * 2 < LOOK_MAX_USEC ? pod->delay_usec * 2 : LOOK_MAX_USEC;
        set_timer(pod, pod->delay_usec);
        return;
    }
    if (r == 0 && truth.frozen < truth.present)
        r = error_outcome(&error, FREEZER_E_TIMEOUT,
                          "%u of %u containers did not become frozen within %.0f ms",
                          truth.present - truth.frozen, truth.present,
                          to_msec(config_of(pod)->freeze_timeout_usec));
    if (r == 0)
        r = check_complete(pod, &truth, &error);
    if (r == 0)
        become_frozen(pod);
    else
        roll_back(pod, r, &error);
}

void transition_resume(struct pod *pod)
{
    pod->state = POD_FREEZING;
    pod->delay_usec = LOOK_FIRST_USEC;
    watcher_add(freezer_watcher(pod->freezer), pod);
    look(pod);
}

static void apply(struct pod *pod)
{
    struct error error = ERROR_INIT;

    pod->touched = true;
    int r = pod_allow_swap(&pod->cgroups, &error);
    if (r == 0) {
        watcher_add(freezer_watcher(pod->freezer), pod);
        r = pod_freeze(&pod->cgroups, &error);
    }
    if (r == POD_E_CHANGED)
        r = FREEZER_E_CONFLICT;
    if (r != 0)
        roll_back(pod, r, &error);
    else
        transition_resume(pod);
}

static void on_record_written(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_busy = false;
    free(pod->record_text);
    pod->record_text = NULL;
    if (pod->state == POD_THAWING) {
        leave_step(pod);
    } else if (pod->disk_result < 0) {
        complain_about_store(pod, "cannot write the record");
        roll_back(pod, pod->disk_result, &pod->disk_error);
    } else {
        apply(pod);
    }
}

void transition_begin(struct pod *pod)
{
    struct error error = ERROR_INIT;
    int r = record_encode(&pod->cgroups.record, &pod->record_text, &pod->record_len, &error);

    pod->state = POD_FREEZING;
    if (config_of(pod)->prefetcher)
        prefetch_stop(config_of(pod)->prefetcher, uid_of(pod));
    waker_prepare(pod);
    if (r < 0)
        roll_back(pod, r, &error);
    else
        submit_disk_job(pod, write_record, on_record_written);
}

/* ---- out of it ---- */

static void retry_later(struct pod *pod)
{
    pod->delay_usec = pod->delay_usec < RETRY_FIRST_USEC ? RETRY_FIRST_USEC : pod->delay_usec * 2;
    if (pod->delay_usec > RETRY_MAX_USEC)
        pod->delay_usec = RETRY_MAX_USEC;
    set_timer(pod, pod->delay_usec);
}

static void on_record_removed(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_busy = false;
    if (pod->disk_result == 0) {
        pod->state = POD_RUNNING;
        freezer_answer(pod, FOR_FREEZE, pod->leave_result, &pod->leave_error);
        freezer_answer(pod, FOR_THAWED, 0, NULL);
        freezer_drop(pod);
        return;
    }
    if (!pod->complained)
        complain_about_store(pod, "the pod runs, but its record cannot be removed");
    pod->complained = true;
    freezer_answer(pod, FOR_FREEZE, pod->leave_result, &pod->leave_error);
    freezer_answer(pod, FOR_THAWED, 0, NULL);
    freezer_answer(pod, WAITERS(WAITS_TO_FREEZE), pod->disk_result, &pod->disk_error);
    retry_later(pod);
}

/* First the app runs, then its limits are back, then the record goes. */
static void leave_step(struct pod *pod)
{
    struct error error = ERROR_INIT;

    if (!pod->thawed)
        pod->thawed = pod_thaw(&pod->cgroups, &error) == 0;
    if (!pod->restored) /* of two failures the one that keeps the app from running is told */
        pod->restored = pod_restore_swap(&pod->cgroups, pod->thawed ? &error : NULL) == 0;
    if (pod->thawed && pod->restored && !pod->disk_busy)
        submit_disk_job(pod, remove_record, on_record_removed);
    waker_disarm(pod); /* behind the record on the same worker: nobody waits for this */
    if (pod->thawed && pod->restored)
        return;
    if (!pod->complained)
        log_error_with(FIELDS({ "POD", uid_of(pod) }, { "OP", "thaw" }), "%s; trying again",
                       error.msg);
    pod->complained = true;
    pod->thaw_error = error;
}

static void answer_thaw(struct pod *pod)
{
    struct error error = pod->thaw_error;

    freezer_answer(pod, FOR_FREEZE, pod->leave_result, &pod->leave_error);
    if (pod->thawed)
        freezer_answer(pod, FOR_THAWED, 0, NULL);
    else
        freezer_answer(pod, FOR_THAWED, -EIO, &error);
}

static void on_leave_timer(struct pod *pod)
{
    if (!pod->disk_busy)
        leave_step(pod);
    answer_thaw(pod);
    if (pod->disk_busy)
        return;
    freezer_answer(pod, WAITERS(WAITS_TO_FREEZE), -EIO, &pod->thaw_error);
    retry_later(pod);
}

void transition_hurry(struct pod *pod)
{
    set_timer(pod, THAW_ANSWER_USEC);
}

/* What the end of the frozen state is to those who hear of it. */
static void tell_thawed(struct pod *pod, enum thaw_cause cause, uint64_t started_usec)
{
    uint64_t frozen_for = events_now_usec() - pod->cgroups.record.frozen_at_usec;

    count(pod, STAT_THAWS, cause);
    observe(pod, STAT_THAW_SECONDS, loop_now_usec() - started_usec);
    if (cause == THAW_PACKET)
        return; /* transition_wake tells more */
    emit(pod, "thawed", thaw_cause_names[cause],
         json_pack("{sf}", "frozen_for", to_msec(frozen_for)));
    log_info_with(
        FIELDS({ "POD", uid_of(pod) }, { "OP", "thaw" }, { "CAUSE", thaw_cause_names[cause] }),
        "thawed after %.1f s", (double)frozen_for / USEC_PER_SEC);
}

/* Its pages come back on a worker, while it runs already. A pod that was not reclaimed has them. */
static void start_prefetch(struct pod *pod)
{
    struct error error = ERROR_INIT;
    int fds[POD_CONTAINERS_MAX];
    struct prefetch_pod prefetch = prefetch_of(pod, fds);

    if (!config_of(pod)->prefetcher || !pod->thawed ||
        (pod->reclaim_state != RECLAIM_RUNNING && pod->reclaimed.bytes == 0))
        return;
    if (prefetch_start(config_of(pod)->prefetcher, &prefetch, &error) < 0)
        log_warning_with(FIELDS({ "POD", uid_of(pod) }), "%s, ignoring", error.msg);
}

static void stop_reclaim(struct pod *pod)
{
    pod->reclaim = reclaim_stop(pod->reclaim, &pod->reclaimed);
    if (pod->reclaim_state == RECLAIM_RUNNING || pod->reclaim_state == RECLAIM_WAITING) {
        pod->reclaim_state = RECLAIM_STOPPED;
        pod->reclaim_reason = "thawed";
    }
}

/* From here on the pod only leaves. What had come to be frozen was no failure to those who wait for
 * its reclaim. */
static bool enter_thawing(struct pod *pod, enum thaw_cause cause, int result,
                          const struct error *error)
{
    bool was_frozen = pod->state == POD_FROZEN;

    pod->state = POD_THAWING;
    pod->cause = cause;
    pod->delay_usec = 0;
    pod->complained = false;
    pod->leave_result = was_frozen ? 0 : result;
    if (error && !was_frozen)
        pod->leave_error = *error;
    if (!was_frozen && !pod->adopted)
        count(pod, STAT_FREEZES, freezer_failure(result));
    return was_frozen;
}

void transition_leave(struct pod *pod, enum thaw_cause cause, int result, const struct error *error)
{
    uint64_t started = loop_now_usec();

    if (transition_is_leaving(pod))
        return;
    bool was_frozen = enter_thawing(pod, cause, result, error);
    pod->thawed = pod->restored = !pod->touched;
    if (!pod->disk_busy)
        leave_step(pod);
    if (was_frozen)
        start_prefetch(pod);
    stop_reclaim(pod);
    watcher_forget(freezer_watcher(pod->freezer), pod);
    if (was_frozen)
        tell_thawed(pod, cause, started);
    transition_hurry(pod);
}

void transition_wake(struct pod *pod, const struct trigger_event *packet)
{
    struct error error = ERROR_INIT;
    int r = error_outcome(&error, FREEZER_E_CONFLICT, "a packet came for it (%s from %s)",
                          packet->kind, packet->source);

    transition_leave(pod, THAW_PACKET, r, &error);
    uint64_t usec = loop_now_usec() - packet->seen_usec;
    observe(pod, STAT_WAKE_SECONDS, usec);
    emit(pod, "woken", packet->kind,
         json_pack("{ss si si sI}", "source", packet->source, "source_port",
                   (int)packet->source_port, "port", (int)packet->local_port, "latency_usec",
                   (json_int_t)usec));
    log_info_with(FIELDS({ "POD", uid_of(pod) }, { "OP", "wake" }, { "CAUSE", packet->kind },
                         { "SOURCE", packet->source }),
                  "woken by %s from %s for port %u, %llu us after it came", packet->kind,
                  packet->source, packet->local_port, (unsigned long long)usec);
}

void transition_forget(struct pod *pod)
{
    if (transition_is_leaving(pod))
        return;
    struct error error = ERROR_INIT;
    int r = error_outcome(&error, FREEZER_E_CONFLICT, "the pod went away");

    enter_thawing(pod, THAW_CHANGED, r, &error);
    pod->thawed = pod->restored = !pod->touched;
    if (config_of(pod)->prefetcher)
        prefetch_forget(config_of(pod)->prefetcher, uid_of(pod));
    stop_reclaim(pod);
    watcher_forget(freezer_watcher(pod->freezer), pod);
    emit(pod, "gone", NULL, NULL);
    log_info_with(FIELDS({ "POD", uid_of(pod) }), "the pod is gone");
    if (!pod->disk_busy)
        leave_step(pod);
    transition_hurry(pod);
}

/* ---- drift ---- */

static void tell_drift(struct pod *pod, unsigned series, const char *field, const char *what)
{
    count(pod, STAT_DRIFT, series);
    emit(pod, "drift", NULL, json_pack("{ss ss}", "field", field, "detail", what));
    log_warning_with(FIELDS({ "POD", uid_of(pod) }, { "FIELD", field }), "drift: %s", what);
}

static void heal_swap_max(struct pod *pod)
{
    struct error error = ERROR_INIT;

    for (unsigned i = 0; i < pod->cgroups.record.n_containers; i++) {
        bool changed = false;
        if (pod->heals[i] >= DRIFT_HEALS_MAX)
            continue;
        if (pod_allow_swap_again(&pod->cgroups, i, &changed, &error) < 0)
            log_warning_with(FIELDS({ "POD", uid_of(pod) }), "%s, ignoring", error.msg);
        if (!changed)
            continue;
        pod->heals[i]++;
        tell_drift(pod, STAT_DRIFT_SWAP_MAX, CGROUP_SWAP_MAX,
                   "somebody set it while the pod was frozen; set back to max");
    }
}

static void check_frozen(struct pod *pod, const struct pod_truth *truth)
{
    bool stranger = false;

    if (truth->requested < truth->present) {
        tell_drift(pod, STAT_DRIFT_THAWED, CGROUP_FREEZE,
                   "somebody thawed a container; the rest of the pod follows");
        transition_leave(pod, THAW_DRIFT, 0, NULL);
        return;
    }
    if (pod_find_stranger(&pod->cgroups, &stranger, NULL) < 0)
        stranger = false;
    if (truth->present < pod->cgroups.record.n_containers || stranger) {
        tell_drift(pod, STAT_DRIFT_CONTAINER, "container",
                   stranger ? "a container started; the rest of the pod is thawed"
                            : "a container went away; the rest of the pod is thawed");
        transition_leave(pod, THAW_CHANGED, 0, NULL);
        return;
    }
    heal_swap_max(pod);
}

void transition_check(struct pod *pod)
{
    struct error error = ERROR_INIT;
    struct pod_truth truth;

    if (pod->state == POD_FREEZING && !pod->disk_busy)
        look(pod);
    if (pod->state != POD_FROZEN)
        return;
    if (pod_read_truth(&pod->cgroups, &truth, &error) < 0) {
        log_warning_with(FIELDS({ "POD", uid_of(pod) }), "%s, ignoring", error.msg);
        return;
    }
    if (truth.present == 0)
        transition_forget(pod);
    else
        check_frozen(pod, &truth);
}
