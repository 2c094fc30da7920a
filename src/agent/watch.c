#include "agent/watch.h"

#include <string.h>
#include <sys/inotify.h>

#include "agent/transition.h"
#include "common/log.h"
#include "common/loop.h"

/* A sweep looks at pods for so long, and then rests: a thaw that comes meanwhile is not to wait.
 * One pod of two containers takes 30 to 100 us. */
#define SWEEP_SLICE_USEC ((uint64_t)200)
#define SWEEP_PAUSE_USEC (2 * USEC_PER_MSEC)

struct watch {
    UT_hash_handle hh; /* of the watcher, by wd */
    int wd;
    struct pod *pod;
    struct watch *next; /* of the same pod */
};

struct watcher {
    struct freezer *freezer;
    int fd;
    sd_event_source *source;
    sd_event_source *sweep;
    struct watch *table;
    struct { /* the pod that the sweep has looked at last; 0 between two sweeps */
        char uid[POD_UID_SIZE];
        uint64_t serial;
    } swept;
    bool blind; /* something could not be watched */
};

/* ---- what is watched ---- */

static void start_sweep(struct watcher *watcher, uint64_t usec);

/* From now on the sweep is what notices. */
static void go_blind(struct watcher *watcher, const struct error *error)
{
    if (watcher->blind)
        return;
    watcher->blind = true;
    log_warning("%s; changes by others are noticed once a minute only", error->msg);
    start_sweep(watcher, WATCH_SWEEP_BLIND_USEC);
}

static void add_watch(struct watcher *watcher, struct pod *pod, int group_fd, const char *file,
                      uint32_t mask)
{
    struct error error = ERROR_INIT;
    struct watch *watch = calloc(1, sizeof *watch), *other = NULL;

    if (!watch)
        return;
    watch->wd = cgroup_watch(watcher->fd, group_fd, file, mask, &error);
    if (watch->wd >= 0)
        HASH_FIND_INT(watcher->table, &watch->wd, other);
    if (watch->wd < 0 || other) {
        if (watch->wd < 0)
            go_blind(watcher, &error);
        free(watch);
        return;
    }
    watch->pod = pod;
    watch->next = pod->watches;
    pod->watches = watch;
    HASH_ADD_INT(watcher->table, wd, watch);
}

void watcher_add(struct watcher *watcher, struct pod *pod)
{
    if (pod->watches)
        return;
    if (pod->cgroups.pod_fd >= 0)
        add_watch(watcher, pod, pod->cgroups.pod_fd, NULL, IN_CREATE | IN_DELETE | IN_ONLYDIR);
    for (unsigned i = 0; i < pod->cgroups.record.n_containers; i++) {
        int fd = pod->cgroups.containers[i].fd;
        if (fd < 0)
            continue;
        /* The directory's watch brings writes by others. The kernel's own notification needs the
         * file's inode in memory, which a watch of its own keeps there. */
        add_watch(watcher, pod, fd, NULL, IN_MODIFY | IN_ONLYDIR);
        add_watch(watcher, pod, fd, CGROUP_EVENTS, IN_MODIFY);
    }
}

void watcher_forget(struct watcher *watcher, struct pod *pod)
{
    struct watch *watch;

    if (!watcher)
        return;
    while ((watch = pod->watches)) {
        pod->watches = watch->next;
        inotify_rm_watch(watcher->fd, watch->wd);
        HASH_DEL(watcher->table, watch);
        free(watch);
    }
}

/* ---- what comes in ---- */

static bool is_interesting(const struct inotify_event *event)
{
    if (event->mask & (IN_CREATE | IN_DELETE))
        return event->mask & IN_ISDIR;
    return event->len == 0 || strcmp(event->name, CGROUP_FREEZE) == 0 ||
           strcmp(event->name, CGROUP_SWAP_MAX) == 0 || strcmp(event->name, CGROUP_EVENTS) == 0;
}

/* What came in one read happened before the first check: `*checked` is not looked at again. It may
 * be gone by now, but no watch of a pod made since then can be in that read. */
static void handle(struct watcher *watcher, const struct inotify_event *event,
                   const struct pod **checked)
{
    struct watch *watch;

    if (event->mask & IN_Q_OVERFLOW) {
        start_sweep(watcher, 0);
        return;
    }
    HASH_FIND_INT(watcher->table, &event->wd, watch);
    if (!watch || watch->pod == *checked || !is_interesting(event))
        return;
    *checked = watch->pod;
    transition_check(watch->pod);
}

static int on_inotify(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    _Alignas(struct inotify_event) char buffer[8192];
    const struct pod *checked = NULL;
    ssize_t n = read(fd, buffer, sizeof buffer);

    (void)source;
    (void)revents;
    for (char *p = buffer; n > 0 && p < buffer + n;) {
        struct inotify_event *event = (struct inotify_event *)p;
        handle(userdata, event, &checked);
        p += sizeof *event + event->len;
    }
    return 0;
}

/* ---- the sweep ---- */

static int on_sweep(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct watcher *watcher = userdata;
    struct pod *pod = freezer_after(watcher->freezer, watcher->swept.uid, watcher->swept.serial);

    (void)source;
    (void)usec;
    uint64_t start = loop_now_usec();
    while (pod && loop_now_usec() - start < SWEEP_SLICE_USEC) {
        struct pod *next = freezer_next(watcher->freezer, pod);
        watcher->swept.serial = pod->serial;
        strcpy(watcher->swept.uid, pod->cgroups.record.pod_uid);
        transition_check(pod);
        pod = next;
    }
    if (!pod)
        watcher->swept.serial = 0;
    uint64_t rest = watcher->blind ? WATCH_SWEEP_BLIND_USEC : WATCH_SWEEP_USEC;
    start_sweep(watcher, pod ? SWEEP_PAUSE_USEC : rest);
    return 0;
}

static void start_sweep(struct watcher *watcher, uint64_t usec)
{
    const struct freezer_config *config = freezer_config(watcher->freezer);

    if (loop_timer(config->event, &watcher->sweep, usec, on_sweep, watcher) < 0)
        log_error("the sweep over frozen pods cannot go on, ignoring");
}

/* ---- the object ---- */

int watcher_open(struct watcher **ret, struct freezer *freezer, struct error *error)
{
    struct watcher *watcher = calloc(1, sizeof *watcher);
    int r = 0;

    if (!watcher)
        return error_set(error, ENOMEM, "open the watcher");
    watcher->freezer = freezer;
    watcher->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watcher->fd < 0)
        r = error_set(error, errno, "open inotify");
    if (r == 0)
        r = sd_event_add_io(freezer_config(freezer)->event, &watcher->source, watcher->fd, EPOLLIN,
                            on_inotify, watcher);
    if (r < 0) {
        watcher_close(watcher);
        return r;
    }
    start_sweep(watcher, WATCH_SWEEP_USEC);
    *ret = watcher;
    return 0;
}

struct watcher *watcher_close(struct watcher *watcher)
{
    if (watcher) {
        sd_event_source_disable_unref(watcher->source);
        sd_event_source_disable_unref(watcher->sweep);
        close_fd(watcher->fd);
    }
    free(watcher);
    return NULL;
}
