/* Notices what others do to a frozen pod, without asking.
 *
 * inotify works on cgroup files: a write of memory.swap.max or cgroup.freeze by anyone, the
 * kernel's own notifications of cgroup.events, groups that are made or removed (measured on 6.1,
 * 6.12 and 6.18; fs/kernfs/file.c kernfs_notify_workfn). A notification only says where to look:
 * the pod is then compared with its cgroups (transition_check). As a net below, every pod is
 * looked at once in WATCH_SWEEP_USEC, or WATCH_SWEEP_BLIND_USEC once the kernel has run out of
 * watches. A queue that ran over is made up for at once. */
#pragma once

#include "agent/freezer.h"

#define WATCH_SWEEP_USEC       (600 * USEC_PER_SEC)
#define WATCH_SWEEP_BLIND_USEC (60 * USEC_PER_SEC)

struct watcher;
struct watch;

int watcher_open(struct watcher **ret, struct freezer *freezer, struct error *error) MUST_CHECK;
struct watcher *watcher_close(struct watcher *watcher);

/* Watches every container of the pod. What cannot be watched is left to the sweep. */
void watcher_add(struct watcher *watcher, struct pod *pod);
void watcher_forget(struct watcher *watcher, struct pod *pod);

/* The freezer's own. */
struct watcher *freezer_watcher(const struct freezer *freezer);
