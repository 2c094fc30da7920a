#include "agent/transition.h"

#include <string.h>

#include "agent/limits.h"
#include "agent/paging.h"
#include "agent/tell.h"
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

static void leave_step(struct pod *pod);

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
    int r = loop_timer(pod_config(pod)->event, &pod->timer, usec, on_timer, pod);

    if (r < 0)
        log_error_with(FIELDS({ "POD", pod_uid(pod) }), "cannot set a timer: %s", strerror(-r));
}

/* ---- the record ---- */

static void submit_disk_job(struct pod *pod, void (*run)(struct worker_job *),
                            void (*done)(struct worker_job *))
{
    pod->disk_busy = true;
    pod->disk_job = (struct worker_job){ .run = run, .done = done };
    worker_submit(pod_config(pod)->disk, &pod->disk_job);
}

/* Then everything that may block is behind us: the trigger is armed before the freeze, so that no
 * packet falls between. */
static void write_record(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_result = store_put_text(pod_config(pod)->store, pod_uid(pod), pod->record_text,
                                      pod->record_len, &pod->disk_error);
    if (pod->disk_result == 0)
        waker_attach(pod);
}

static void remove_record(struct worker_job *job)
{
    struct pod *pod = container_of(job, struct pod, disk_job);

    pod->disk_result = store_remove(pod_config(pod)->store, pod_uid(pod), &pod->disk_error);
}

static void complain_about_store(struct pod *pod, const char *what)
{
    tell_count(pod, STAT_STORE_ERRORS, 0);
    log_error_with(FIELDS({ "POD", pod_uid(pod) }), "%s: %s", what, pod->disk_error.msg);
}

/* ---- into the frozen state ---- */

static void roll_back(struct pod *pod, int result, const struct error *error)
{
    log_warning_with(FIELDS({ "POD", pod_uid(pod) }, { "OP", "freeze" }), "not frozen: %s",
                     error->msg);
    transition_leave(pod, THAW_ROLLBACK, result, error);
}

void transition_reclaim(struct pod *pod)
{
    if (pod->state == POD_FROZEN && pod->reclaim_state == RECLAIM_WAITING)
        paging_out(pod);
}

static void become_frozen(struct pod *pod)
{
    pod->state = POD_FROZEN;
    pod->freeze_usec = loop_now_usec() - pod->requested_usec;
    if (!pod->adopted) {
        tell_count(pod, STAT_FREEZES, STAT_FREEZE_OK);
        tell_duration(pod, STAT_FREEZE_SECONDS, pod->freeze_usec);
        tell_event(pod, "frozen", NULL, json_pack("{sf}", "duration", tell_msec(pod->freeze_usec)));
        log_info_with(FIELDS({ "POD", pod_uid(pod) }, { "OP", "freeze" }), "frozen in %.2f ms",
                      tell_msec(pod->freeze_usec));
    }
    uint64_t later = paging_plan(pod);
    if (later > 0)
        set_timer(pod, later);
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
    return loop_now_usec() - pod->requested_usec >= pod_config(pod)->freeze_timeout_usec;
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
                          tell_msec(pod_config(pod)->freeze_timeout_usec));
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
    paging_stop(pod);
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
        log_error_with(FIELDS({ "POD", pod_uid(pod) }, { "OP", "thaw" }), "%s; trying again",
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
    uint64_t now = events_now_usec(), since = pod->cgroups.record.frozen_at_usec;
    uint64_t frozen_for = now > since ? now - since : 0; /* a clock can be set back */

    tell_count(pod, STAT_THAWS, cause);
    tell_duration(pod, STAT_THAW_SECONDS, loop_now_usec() - started_usec);
    if (cause == THAW_PACKET)
        return; /* transition_wake tells more */
    tell_event(pod, "thawed", thaw_cause_names[cause],
               json_pack("{sf}", "frozen_for", tell_msec(frozen_for)));
    log_info_with(
        FIELDS({ "POD", pod_uid(pod) }, { "OP", "thaw" }, { "CAUSE", thaw_cause_names[cause] }),
        "thawed after %.1f s", (double)frozen_for / USEC_PER_SEC);
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
        tell_count(pod, STAT_FREEZES, freezer_failure(result));
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
    paging_stop(pod);
    if (was_frozen && pod->thawed)
        paging_in(pod);
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
    bool was_frozen = pod->state == POD_FROZEN;

    transition_leave(pod, THAW_PACKET, r, &error);
    uint64_t usec = loop_now_usec() - packet->seen_usec;
    if (!was_frozen)
        return; /* those who wait for the freeze are told */
    tell_duration(pod, STAT_WAKE_SECONDS, usec);
    tell_event(pod, "woken", packet->kind,
               json_pack("{ss si si sI}", "source", packet->source, "source_port",
                         (int)packet->source_port, "port", (int)packet->local_port, "latency_usec",
                         (json_int_t)usec));
    log_info_with(FIELDS({ "POD", pod_uid(pod) }, { "OP", "wake" }, { "CAUSE", packet->kind },
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
    paging_forget(pod);
    watcher_forget(freezer_watcher(pod->freezer), pod);
    tell_event(pod, "gone", NULL, NULL);
    log_info_with(FIELDS({ "POD", pod_uid(pod) }), "the pod is gone");
    if (!pod->disk_busy)
        leave_step(pod);
    transition_hurry(pod);
}

/* ---- drift ---- */

static void tell_drift(struct pod *pod, unsigned series, const char *field, const char *what)
{
    tell_count(pod, STAT_DRIFT, series);
    tell_event(pod, "drift", NULL, json_pack("{ss ss}", "field", field, "detail", what));
    log_warning_with(FIELDS({ "POD", pod_uid(pod) }, { "FIELD", field }), "drift: %s", what);
}

static void heal_swap_max(struct pod *pod)
{
    struct error error = ERROR_INIT;

    for (unsigned i = 0; i < pod->cgroups.record.n_containers; i++) {
        bool changed = false;
        if (pod->heals[i] >= DRIFT_HEALS_MAX)
            continue;
        if (pod_allow_swap_again(&pod->cgroups, i, &changed, &error) < 0)
            log_warning_with(FIELDS({ "POD", pod_uid(pod) }), "%s, ignoring", error.msg);
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
        log_warning_with(FIELDS({ "POD", pod_uid(pod) }), "%s, ignoring", error.msg);
        return;
    }
    if (truth.present == 0)
        transition_forget(pod);
    else
        check_frozen(pod, &truth);
}
