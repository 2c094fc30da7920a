/* The only module that opens anything below the cgroup root.
 *
 * A group is known by the fd of its directory, opened once beneath the root without following a
 * symbolic link (openat2(2), RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS); its files are opened relative
 * to that fd, so that a group cannot be swapped under us. The caller owns the fd.
 *
 * Kernel files are not files: one read(2), one write(2), no O_CREAT, no O_TRUNC, no retry.
 * Everything here is fast enough for the loop thread except cgroup_reclaim.
 *
 * A group that is gone reads as -ENODEV (fd still open) or -ENOENT; cgroup_is_gone() knows both.
 * Source: Documentation/admin-guide/cgroup-v2.rst. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/kernfile.h"
#include "common/error.h"

#define CGROUP_FREEZE   "cgroup.freeze"
#define CGROUP_EVENTS   "cgroup.events"
#define CGROUP_SWAP_MAX "memory.swap.max"

struct cgroup_root;

enum cgroup_root_flags {
    CGROUP_ROOT_ANY_FS = 1 << 0, /* a tree of plain files that a test made */
};

/* -EINVAL when `path` is not a cgroup v2 mount (or below one). */
int cgroup_root_open(struct cgroup_root **ret, const char *path, int flags,
                     struct error *error) MUST_CHECK;
struct cgroup_root *cgroup_root_close(struct cgroup_root *root);
const char *cgroup_root_path(const struct cgroup_root *root);
/* Does this hierarchy have the memory controller (swap, reclaim)? */
bool cgroup_root_has_memory(const struct cgroup_root *root);

/* Opens a group by its path relative to the root ("" is the root itself). No "..", no leading "/".
 * -ENOENT and the like leave `error` set, too. */
int cgroup_open(const struct cgroup_root *root, const char *path, int *ret_fd,
                struct error *error) MUST_CHECK;
int cgroup_open_child(int group_fd, const char *name, int *ret_fd, struct error *error) MUST_CHECK;

/* Makes a group below the root, and removes it with what is in it. For the self-test. */
int cgroup_create(const struct cgroup_root *root, const char *name, int *ret_fd,
                  struct error *error) MUST_CHECK;
int cgroup_destroy(const struct cgroup_root *root, const char *name, struct error *error);

static inline bool cgroup_is_gone(int r)
{
    return r == -ENOENT || r == -ENODEV;
}

/* Identifies this very group for as long as the machine runs: a group made anew under the same name
 * has another. */
int cgroup_inode(int group_fd, uint64_t *ret, struct error *error) MUST_CHECK;
/* The same of a group below it, without opening that. */
int cgroup_child_inode(int group_fd, const char *name, uint64_t *ret,
                       struct error *error) MUST_CHECK;

int cgroup_read(int group_fd, const char *file, char *buffer, size_t size,
                struct error *error) MUST_CHECK;
int cgroup_read_value(int group_fd, const char *file, uint64_t *ret,
                      struct error *error) MUST_CHECK;
int cgroup_read_events(int group_fd, struct kernfile_events *ret, struct error *error) MUST_CHECK;
int cgroup_write(int group_fd, const char *file, const char *text, struct error *error) MUST_CHECK;

/* cgroup.freeze: the request, as against cgroup.events, the fact. */
int cgroup_read_freeze(int group_fd, bool *ret, struct error *error) MUST_CHECK;
int cgroup_write_freeze(int group_fd, bool freeze, struct error *error) MUST_CHECK;

/* memory.swap.max as text without the newline. */
int cgroup_read_swap_max(int group_fd, char *buffer, size_t size, struct error *error) MUST_CHECK;

/* Calls back for each child group, in the directory's order; a positive or negative return value
 * ends the walk and is returned. */
int cgroup_for_each_child(int group_fd,
                          int (*callback)(int group_fd, const char *name, void *userdata),
                          void *userdata, struct error *error) MUST_CHECK;

/* Blocks: call it on a worker. 0 when the kernel reclaimed that much, CGROUP_E_DRY when it found no
 * more (EAGAIN, the normal end), -EINTR when a signal came. Partial progress is not reported: read
 * memory.current before and after. Source: mm/memcontrol.c memory_reclaim. */
enum cgroup_outcome { CGROUP_E_DRY = 1 };
int cgroup_reclaim(int group_fd, uint64_t bytes, struct error *error) MUST_CHECK;

/* Is the only process of the group, and of those below it, a sandbox ("pause")? False when that
 * cannot be told, as from another PID namespace. */
bool cgroup_is_sandbox(int group_fd);

/* The first process of the group or, when it has none, of the groups below it (as many and as deep
 * as limits.h allows a container). 0: there is none, or it is in another PID namespace. */
pid_t cgroup_first_pid(int group_fd);

/* Does this process itself live in this group? (Groups below it are not looked at.) */
bool cgroup_holds_self(int group_fd);

/* The processes of a group and of those below it: at most `max`, their number is returned. Those of
 * a PID namespace that we do not see into are 0. */
unsigned cgroup_list_pids(int group_fd, pid_t *pids, unsigned max);

/* How many bytes may be charged to a group before it, or one below it, comes near memory.high or
 * memory.max: a margin is left for what the app itself needs meanwhile. KERNFILE_MAX where nothing
 * is limited. cgroup_own_room leaves out what is below. */
uint64_t cgroup_room(int group_fd);
uint64_t cgroup_own_room(int group_fd);

/* Adds an inotify watch to the group's directory (file NULL) or to one of its files. Returns the
 * watch descriptor or -errno. Needs /proc. */
int cgroup_watch(int inotify_fd, int group_fd, const char *file, uint32_t mask,
                 struct error *error);
