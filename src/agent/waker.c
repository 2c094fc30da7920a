#include "agent/waker.h"

#include "agent/freezer.h"
#include "common/log.h"

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
    struct trigger *trigger;
    enum trigger_means means;
};

/* Of one pod. */
struct waker_arm {
    struct trigger_link *link;
};

/* ---- one pod ---- */

static void on_packet(const struct trigger_event *event, void *armed_for)
{
    freezer_wake(armed_for, event);
}

void waker_prepare(struct pod *pod)
{
    struct waker *waker = freezer_waker(pod->freezer);
    enum wake_on wake_on = pod->cgroups.record.wake_on;
    struct error error = ERROR_INIT;

    if (pod->arm || wake_on == WAKE_ON_NONE || !waker->trigger || pod->cgroups.pod_fd < 0)
        return;
    struct waker_arm *arm = calloc(1, sizeof *arm);
    if (!arm)
        return;
    if (trigger_prepare(waker->trigger, wake_on, pod, &arm->link, &error) < 0) {
        log_error_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }), "%s, ignoring", error.msg);
        free(arm);
        return;
    }
    pod->arm = arm;
}

void waker_attach(struct pod *pod)
{
    struct error error = ERROR_INIT;

    if (pod->arm && trigger_attach(pod->arm->link, pod->cgroups.pod_fd, &error) < 0)
        log_error_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }),
                       "%s: no packet will wake this pod", error.msg);
}

void waker_look(struct pod *pod)
{
    (void)pod;
}

void waker_disarm(struct pod *pod)
{
    if (pod->arm)
        trigger_disarm(pod->arm->link);
    free(pod->arm);
    pod->arm = NULL;
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
    struct error cause = ERROR_INIT;

    waker->means = TRIGGER_MEANS_NONE;
    if (!config || config->wanted == WAKER_OFF)
        return 0;
    int r = open_trigger(waker, config, &cause);
    if (r == 0) {
        waker->means = TRIGGER_MEANS_BPF;
        return 0;
    }
    if (config->wanted == WAKER_BPF) {
        if (error)
            *error = cause;
        return r;
    }
    log_warning("%s: packets wake nobody", cause.msg);
    return 0;
}

int waker_open(struct waker **ret, struct freezer *freezer, const struct waker_config *config,
               struct error *error)
{
    struct waker *waker = calloc(1, sizeof *waker);

    if (!waker)
        return error_set(error, ENOMEM, "open the waker");
    waker->freezer = freezer;
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
    if (waker)
        trigger_close(waker->trigger);
    free(waker);
    return NULL;
}

enum trigger_means waker_means(const struct waker *waker)
{
    return waker->means;
}
