/* Where pods live: names and paths, no file access but the search for roots.
 *
 * A kubelet makes its tree below a root: "kubepods" (cgroupfs driver) or "kubepods.slice" (systemd
 * driver; below a slice its name repeats the ancestry, "kubelet-kubepods.slice" in kind). The UID
 * of a pod is then asked for in the few directories that it can have:
 *   systemd   R/[P-{burstable,besteffort}.slice/]P[-{burstable,besteffort}]-pod<uid, _ for ->.slice
 *   cgroupfs  R/[{burstable,besteffort}/]pod<uid>
 * with P the root's name without ".slice". Static pods have 32 hex digits as UID.
 * Sources: kubernetes pkg/kubelet/cm/{pod,qos}_container_manager_linux.go, pkg/kubelet/config. */
#pragma once

#include "agent/cgroup.h"
#include "agent/limits.h"

struct layout;

/* What is wrong with a pod UID from outside ("is not a pod UID …"), or NULL. Whitelist: hex digits
 * in the groups of a UUID, or 32 hex digits; lower case, as Kubernetes writes them. */
const char *layout_check_uid(const char *uid);

/* The container's id when `name` is the directory of a container in a pod of that driver: below a
 * slice "{cri-containerd,crio,docker,…}-<id>.scope", else any directory. CRI-O's monitor
 * ("crio-conmon-…") is none. */
bool layout_container_id(bool systemd, const char *name, char id[static CONTAINER_ID_SIZE]);

/* Finds the roots that are there now. */
int layout_open(struct layout **ret, const struct cgroup_root *root,
                struct error *error) MUST_CHECK;
struct layout *layout_close(struct layout *layout);

/* Searches for roots again (a kubelet that started after us). */
int layout_refresh(struct layout *layout, struct error *error) MUST_CHECK;
const struct cgroup_root *layout_cgroups(const struct layout *layout);
unsigned layout_n_roots(const struct layout *layout);
const char *layout_root_path(const struct layout *layout, unsigned i);

struct layout_pod {
    int fd; /* of the pod's directory, the caller's */
    bool systemd;
    char path[CGROUP_PATH_SIZE]; /* relative to the cgroup root */
};

enum layout_outcome { LAYOUT_E_NOT_FOUND = 1 };

/* Opens the pod's directory. */
int layout_find(const struct layout *layout, const char *uid, struct layout_pod *ret,
                struct error *error) MUST_CHECK;
