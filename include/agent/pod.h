/* One pod's cgroups: found, opened, and written to. No loop, no threads, no state machine.
 *
 * A pod is discovered from the cgroup tree (before a freeze, or for a status), or opened from its
 * record (after a restart). Either way each container's directory is opened once and known by its
 * inode from then on. Only what the record names is ever written. */
#pragma once

#include "agent/layout.h"
#include "agent/record.h"

struct pod_container {
    int fd;       /* of its group; -1 when the container is gone */
    bool foreign; /* cgroup.freeze of it, or of a group above it, was 1 when we discovered it */
};

/* The containers of `record` and of `containers` correspond by index. */
struct pod_cgroups {
    int pod_fd; /* of the pod's directory; -1 when it is gone */
    bool systemd;
    struct record record;
    struct pod_container *containers;
};

enum pod_outcome {
    POD_E_NOT_FOUND = 1,
    POD_E_EMPTY,    /* no container that runs */
    POD_E_TOO_MANY, /* containers, or groups in one */
    POD_E_SELF,     /* it is the agent's own */
    POD_E_CHANGED,  /* a container came or went in between */
};

/* Finds a pod and fills record.{pod_uid, containers}: every container that has processes and is no
 * sandbox, each with the original memory.swap.max of its groups. Writes nothing. POD_E_EMPTY leaves
 * *ret filled all the same, for a status. */
int pod_discover(struct pod_cgroups *ret, const struct layout *layout, const char *uid,
                 struct error *error) MUST_CHECK;

/* Takes the record's content and opens what it names. A container whose group is gone, or is not
 * the one that was recorded (inode), gets fd -1. */
int pod_open_recorded(struct pod_cgroups *ret, const struct cgroup_root *root,
                      const struct layout *layout, struct record *record,
                      struct error *error) MUST_CHECK;

void pod_clear(struct pod_cgroups *pod);

/* memory.swap.max = max on every recorded group. */
int pod_allow_swap(const struct pod_cgroups *pod, struct error *error) MUST_CHECK;

/* The same for one container's own group, when somebody has changed it. */
int pod_allow_swap_again(const struct pod_cgroups *pod, unsigned container, bool *ret_changed,
                         struct error *error) MUST_CHECK;

/* The originals are back on every recorded group that still is the one that was recorded. Goes on
 * after a failure and returns the first. */
int pod_restore_swap(const struct pod_cgroups *pod, struct error *error) MUST_CHECK;

/* cgroup.freeze on every container. Thawing skips what is gone, goes on after a failure and returns
 * the first; freezing stops at the first (POD_E_CHANGED for a container that is gone). */
int pod_freeze(const struct pod_cgroups *pod, struct error *error) MUST_CHECK;
int pod_thaw(const struct pod_cgroups *pod, struct error *error) MUST_CHECK;

/* What the cgroups say now. */
struct pod_truth {
    unsigned present;   /* containers that are there and have processes */
    unsigned requested; /* of these, with cgroup.freeze 1 */
    unsigned frozen;    /* of these, with "frozen 1" */
};
int pod_read_truth(const struct pod_cgroups *pod, struct pod_truth *ret,
                   struct error *error) MUST_CHECK;

/* Has a container (no sandbox) started that the record does not name? */
int pod_find_stranger(const struct pod_cgroups *pod, bool *ret, struct error *error) MUST_CHECK;

/* The first ancestor of the containers (the pod's directory and up) whose memory.swap.max leaves
 * less than `bytes`: its path, or "" for none. */
void pod_find_swap_limit(const struct pod_cgroups *pod, const struct cgroup_root *root,
                         uint64_t bytes, char path[static CGROUP_PATH_SIZE]);
