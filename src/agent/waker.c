#include "agent/waker.h"

#include "agent/freezer.h"
#include "agent/queues.h"
#include "common/log.h"
#include "common/loop.h"

const char *const trigger_means_names[] = {
    [TRIGGER_MEANS_BPF] = "bpf", [TRIGGER_MEANS_POLL] = "poll", [TRIGGER_MEANS_NONE] = "none"
};

static_assert(ARRAY_SIZE(trigger_means_names) == TRIGGER_MEANS_N, "every means has a name");

/* Where the kubelet lives when nobody says; below systemd. */
static const char *const kubelet_cgroups[] = {
    "system.slice/kubelet.service", "system.slice/k3s.service", "system.slice/k3s-agent.service",
    "system.slice/rke2-server.service", "system.slice/rke2-agent.service"
};

struct waker {
    struct freezer *freezer;
    const struct waker_config *config;
    struct trigger *trigger;
    enum trigger_means means;
    struct waker_arm *arms;      /* of all pods */
    struct waker_arm *next_look; /* of those that are looked at in turn; NULL: begin anew */
    sd_event_source *timer;
    struct poll *poll; /* on a worker */
};

/* Of one pod; outlives it while a worker is at it. */
struct waker_arm {
    struct waker_arm *next, **link; /* of the waker; link NULL: disarmed */
    struct waker *waker;
    struct pod *pod;
    struct trigger_link *trigger;
    bool attached;
    struct queues *queues;
    uint64_t *cgroups;
    struct queues_question question;
    uint64_t waiting; /* connections, at the last poll */
    unsigned workers; /* that are at it */

    struct worker_job job; /* the look */
    bool looking;
    struct queues_answer answer;
    int result;
    struct error error;
};

/* ---- the object of one pod ---- */

static void unref(struct waker_arm *arm)
{
    if (arm->link || arm->workers > 0)
        return;
    queues_close(arm->queues);
    free(arm->cgroups);
    free(arm);
}

static void link_arm(struct waker *waker, struct waker_arm *arm)
{
    arm->next = waker->arms;
    arm->link = &waker->arms;
    if (arm->next)
        arm->next->link = &arm->next;
    waker->arms = arm;
}

static void unlink_arm(struct waker_arm *arm)
{
    if (arm->waker->next_look == arm)
        arm->waker->next_look = arm->next;
    *arm->link = arm->next;
    if (arm->next)
        arm->next->link = arm->link;
    arm->link = NULL;
}

/* The inodes of every group that the record names. */
static bool collect_cgroups(struct waker_arm *arm, const struct record *record)
{
    size_t n = 0;

    for (unsigned i = 0; i < record->n_containers; i++)
        n += record->containers[i].n_groups;
    arm->cgroups = calloc(n, sizeof *arm->cgroups);
    if (!arm->cgroups)
        return false;
    for (unsigned i = 0; i < record->n_containers; i++)
        for (unsigned k = 0; k < record->containers[i].n_groups; k++)
            arm->cgroups[arm->question.n_cgroups++] = record->containers[i].groups[k].inode;
    return true;
}

/* Without a look into its network namespace a pod is woken by what comes from now on only. */
static void open_queues(struct waker_arm *arm)
{
    const struct pod *pod = arm->pod;
    struct error error = ERROR_INIT;
    int r = queues_open(&arm->queues, pod->cgroups.containers[0].fd, &error);

    if (r != 0)
        log_debug_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }),
                       "its sockets cannot be looked at: %s", error.msg);
    if (r != 0)
        arm->queues = NULL;
}

static struct waker_arm *arm_new(struct waker *waker, struct pod *pod)
{
    struct waker_arm *arm = calloc(1, sizeof *arm);

    if (!arm)
        return NULL;
    arm->waker = waker;
    arm->pod = pod;
    arm->question = (struct queues_question){ .wake_on = pod->cgroups.record.wake_on,
                                              .ignored = waker->config->ignored,
                                              .n_ignored = waker->config->n_ignored,
                                              .unanswered_msec = WAKER_UNANSWERED_MSEC };
    if (!collect_cgroups(arm, &pod->cgroups.record)) {
        free(arm);
        return NULL;
    }
    arm->question.cgroups = arm->cgroups;
    link_arm(waker, arm);
    open_queues(arm);
    return arm;
}

/* ---- arming ---- */

static void on_packet(const struct trigger_event *event, void *armed_for)
{
    freezer_wake(armed_for, event);
}

void waker_prepare(struct pod *pod)
{
    struct waker *waker = freezer_waker(pod->freezer);
    enum wake_on wake_on = pod->cgroups.record.wake_on;
    struct error error = ERROR_INIT;

    if (pod->arm || wake_on == WAKE_ON_NONE || waker->means == TRIGGER_MEANS_NONE ||
        pod->cgroups.pod_fd < 0)
        return;
    pod->arm = arm_new(waker, pod);
    if (!pod->arm)
        log_error_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }),
                       "out of memory: no packet will wake this pod");
    else if (waker->trigger &&
             trigger_prepare(waker->trigger, wake_on, pod, &pod->arm->trigger, &error) < 0)
        log_error_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }), "%s, ignoring", error.msg);
}

void waker_attach(struct pod *pod)
{
    struct error error = ERROR_INIT;
    struct waker_arm *arm = pod->arm;

    if (!arm || !arm->trigger)
        return;
    arm->attached = trigger_attach(arm->trigger, pod->cgroups.pod_fd, &error) == 0;
    if (!arm->attached)
        log_error_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }),
                       "%s: no packet will wake this pod", error.msg);
}

enum trigger_means waker_means_of(const struct pod *pod)
{
    const struct waker_arm *arm = pod->arm;

    if (!arm || (arm->waker->trigger && !arm->attached))
        return TRIGGER_MEANS_NONE;
    if (arm->waker->trigger)
        return TRIGGER_MEANS_BPF;
    return arm->queues ? TRIGGER_MEANS_POLL : TRIGGER_MEANS_NONE;
}

void waker_disarm(struct pod *pod)
{
    struct waker_arm *arm = pod->arm;

    if (!arm)
        return;
    pod->arm = NULL;
    arm->pod = NULL;
    arm->trigger = trigger_disarm(arm->trigger);
    unlink_arm(arm);
    unref(arm);
}

/* ---- a look at the sockets ---- */

static void run_look(struct worker_job *job)
{
    struct waker_arm *arm = container_of(job, struct waker_arm, job);

    arm->result = queues_look(arm->queues, &arm->question, &arm->answer, &arm->error);
}

static void wake(const struct waker_arm *arm)
{
    struct trigger_event event = { .kind = queues_kind_names[arm->answer.kind],
                                   .source_port = arm->answer.source_port,
                                   .local_port = arm->answer.local_port,
                                   .seen_usec = loop_now_usec() };

    snprintf(event.source, sizeof event.source, "%s", arm->answer.source);
    freezer_wake(arm->pod, &event);
}

static void look_done(struct worker_job *job)
{
    struct waker_arm *arm = container_of(job, struct waker_arm, job);

    arm->looking = false;
    if (arm->link && arm->result < 0)
        log_warning_with(FIELDS({ "POD", arm->pod->cgroups.record.pod_uid }), "%s, ignoring",
                         arm->error.msg);
    else if (arm->link && arm->answer.kind != QUEUES_NOTHING)
        wake(arm); /* disarms: it is kept by its worker until here */
    arm->workers--;
    unref(arm);
}

static void look_dropped(struct worker_job *job)
{
    struct waker_arm *arm = container_of(job, struct waker_arm, job);

    arm->workers--;
    unref(arm);
}

static void look(struct waker_arm *arm)
{
    if (!arm->queues || arm->looking)
        return;
    arm->looking = true;
    arm->workers++;
    arm->job = (struct worker_job){ .run = run_look, .done = look_done, .dropped = look_dropped };
    worker_submit(freezer_config(arm->waker->freezer)->lookers, &arm->job);
}

void waker_look(struct pod *pod)
{
    if (pod->arm)
        look(pod->arm);
}

/* ---- the poll, where packets tell nothing ---- */

struct poll {
    struct worker_job job;
    struct waker *waker;
    unsigned n;
    struct polled {
        struct waker_arm *arm;
        uint64_t waiting;
    } pods[];
};

static void start_poll(struct waker *waker);

static void run_poll(struct worker_job *job)
{
    struct poll *poll = container_of(job, struct poll, job);

    for (unsigned i = 0; i < poll->n; i++) {
        struct waker_arm *arm = poll->pods[i].arm;
        if (queues_poll(arm->queues, &arm->question, &poll->pods[i].waiting, NULL) < 0)
            poll->pods[i].waiting = 0;
    }
}

static void poll_done(struct worker_job *job)
{
    struct poll *poll = container_of(job, struct poll, job);

    for (unsigned i = 0; i < poll->n; i++) {
        struct waker_arm *arm = poll->pods[i].arm;
        arm->workers--;
        if (arm->link && poll->pods[i].waiting > arm->waiting)
            look(arm);
        arm->waiting = poll->pods[i].waiting;
        unref(arm);
    }
    poll->waker->poll = NULL;
    start_poll(poll->waker);
    free(poll);
}

static void poll_dropped(struct worker_job *job)
{
    struct poll *poll = container_of(job, struct poll, job);

    for (unsigned i = 0; i < poll->n; i++) {
        poll->pods[i].arm->workers--;
        unref(poll->pods[i].arm);
    }
    poll->waker->poll = NULL;
    free(poll);
}

static unsigned count_arms(const struct waker *waker)
{
    unsigned n = 0;

    for (const struct waker_arm *arm = waker->arms; arm; arm = arm->next)
        n++;
    return n;
}

/* One of all, in turn: for what only a whole look can tell. */
static void look_in_turn(struct waker *waker)
{
    struct waker_arm *arm = waker->next_look ? waker->next_look : waker->arms;

    if (!arm)
        return;
    waker->next_look = arm->next;
    look(arm);
}

/* Polls and looks share the one thread of their pool, and so the sockets. */
static void fill_poll(struct poll *poll, struct waker *waker)
{
    for (struct waker_arm *arm = waker->arms; arm; arm = arm->next)
        if (arm->queues) {
            arm->workers++;
            poll->pods[poll->n++].arm = arm;
        }
}

static int on_poll_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct waker *waker = userdata;
    struct poll *poll = calloc(1, sizeof *poll + count_arms(waker) * sizeof poll->pods[0]);

    (void)source;
    (void)usec;
    if (!poll) {
        start_poll(waker);
        return 0;
    }
    poll->waker = waker;
    fill_poll(poll, waker);
    poll->job = (struct worker_job){ .run = run_poll, .done = poll_done, .dropped = poll_dropped };
    waker->poll = poll;
    worker_submit(freezer_config(waker->freezer)->lookers, &poll->job);
    look_in_turn(waker);
    return 0;
}

static void start_poll(struct waker *waker)
{
    if (loop_timer(freezer_config(waker->freezer)->event, &waker->timer, WAKER_POLL_USEC,
                   on_poll_timer, waker) < 0)
        log_error("the accept queues cannot be polled any more, ignoring");
}

/* ---- the object ---- */

/* -1 when it is not known: then probes wake, unless their source is ignored. */
static int open_kubelet(struct waker *waker, const char *path)
{
    const struct cgroup_root *root = freezer_config(waker->freezer)->root;
    struct error error = ERROR_INIT;
    int fd = -1;

    if (path) {
        if (cgroup_open(root, path, &fd, &error) < 0)
            log_warning("%s; probes of the kubelet will wake pods, ignoring", error.msg);
        return fd;
    }
    for (size_t i = 0; i < ARRAY_SIZE(kubelet_cgroups) && fd < 0; i++)
        if (cgroup_open(root, kubelet_cgroups[i], &fd, NULL) < 0)
            fd = -1;
    return fd;
}

static int open_trigger(struct waker *waker, const struct waker_config *config, struct error *error)
{
    cleanup(close_p) int kubelet_fd = open_kubelet(waker, config->kubelet_cgroup);
    struct trigger_config trigger = { .event = freezer_config(waker->freezer)->event,
                                      .pool = freezer_config(waker->freezer)->disk,
                                      .ignored = config->ignored,
                                      .n_ignored = config->n_ignored,
                                      .kubelet_fd = kubelet_fd,
                                      .on_packet = on_packet };

    return trigger_open(&waker->trigger, &trigger, error);
}

static int choose_means(struct waker *waker, const struct waker_config *config, struct error *error)
{
    waker->means = TRIGGER_MEANS_NONE;
    if (!config || config->wanted == WAKER_OFF)
        return 0;
    waker->means = TRIGGER_MEANS_POLL;
    if (config->wanted != WAKER_POLL) {
        struct error cause = ERROR_INIT;
        int r = open_trigger(waker, config, &cause);
        if (r == 0)
            waker->means = TRIGGER_MEANS_BPF;
        else if (config->wanted == WAKER_BPF)
            return error_set(error, -r, "%s", cause.msg);
        else
            log_warning("%s: accept queues are polled instead", cause.msg);
    }
    if (waker->means == TRIGGER_MEANS_POLL)
        start_poll(waker);
    return 0;
}

int waker_open(struct waker **ret, struct freezer *freezer, const struct waker_config *config,
               struct error *error)
{
    struct waker *waker = calloc(1, sizeof *waker);

    if (!waker)
        return error_set(error, ENOMEM, "open the waker");
    waker->freezer = freezer;
    waker->config = config;
    int r = choose_means(waker, config, error);
    if (r < 0) {
        waker_close(waker);
        return r;
    }
    metrics_set(freezer_config(freezer)->metrics, STAT_TRIGGER, waker->means, 1);
    *ret = waker;
    return 0;
}

struct waker *waker_close(struct waker *waker)
{
    if (waker) {
        sd_event_source_disable_unref(waker->timer);
        free(waker->poll);
        trigger_close(waker->trigger);
    }
    free(waker);
    return NULL;
}

enum trigger_means waker_means(const struct waker *waker)
{
    return waker->means;
}
