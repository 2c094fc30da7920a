#include "agent/pod.h"

#include <string.h>

/* ---- discovery ---- */

/* A walk over one container's groups: the container's own first, then everything below it. */
struct group_walk {
    struct record_container *container;
    char path[sizeof((struct record_group *)0)->path];
    unsigned depth;
    struct error *error;
};

static int walk_child(int group_fd, const char *name, void *userdata);

static int record_one_group(struct group_walk *walk, int fd)
{
    struct record_group *group = record_add_group(walk->container);

    if (!group)
        return error_set(walk->error, ENOMEM, "record a cgroup");
    strcpy(group->path, walk->path);
    int r = cgroup_inode(fd, &group->inode, walk->error);
    if (r < 0)
        return r;
    r = cgroup_read_swap_max(fd, group->swap_max, sizeof group->swap_max, walk->error);
    if (r == -ENOENT) /* no memory controller here */
        group->swap_max[0] = '\0';
    return r == -ENOENT ? 0 : r;
}

static int walk_group(struct group_walk *walk, int fd)
{
    if (walk->container->n_groups == CONTAINER_GROUPS_MAX || walk->depth > CONTAINER_DEPTH_MAX)
        return error_outcome(walk->error, POD_E_TOO_MANY, "container %s nests too many cgroups",
                             walk->container->id);
    if (cgroup_holds_self(fd))
        return error_outcome(walk->error, POD_E_SELF, "the agent itself runs in this pod");
    int r = record_one_group(walk, fd);
    if (r != 0)
        return r;
    walk->depth++;
    r = cgroup_for_each_child(fd, walk_child, walk, walk->error);
    walk->depth--;
    return r;
}

static int walk_child(int group_fd, const char *name, void *userdata)
{
    struct group_walk *walk = userdata;
    cleanup(close_p) int fd = -1;
    size_t len = strlen(walk->path);

    if (len + strlen(name) + 2 > sizeof walk->path)
        return error_outcome(walk->error, POD_E_TOO_MANY, "container %s nests cgroups too deep",
                             walk->container->id);
    int r = cgroup_open_child(group_fd, name, &fd, walk->error);
    if (r < 0)
        return r;
    sprintf(walk->path + len, "%s%s", len ? "/" : "", name);
    r = walk_group(walk, fd);
    walk->path[len] = '\0';
    return r;
}

struct discovery {
    struct pod_cgroups *pod;
    const struct layout_pod *place;
    bool frozen_above;
    struct error *error;
};

/* Takes the fd on success. */
static int append_container(struct discovery *discovery, int fd, bool foreign,
                            struct record_container **ret)
{
    struct pod_cgroups *pod = discovery->pod;
    unsigned n = pod->record.n_containers;

    if (n == POD_CONTAINERS_MAX)
        return error_outcome(discovery->error, POD_E_TOO_MANY, "more than %d containers",
                             POD_CONTAINERS_MAX);
    struct pod_container *grown = reallocarray(pod->containers, n + 1, sizeof *grown);
    if (grown)
        pod->containers = grown;
    if (!grown || !(*ret = record_add_container(&pod->record)))
        return error_set(discovery->error, ENOMEM, "record a container");
    grown[n] = (struct pod_container){ .fd = fd, .foreign = foreign };
    return 0;
}

static int discover_container(struct discovery *discovery, const char *name, const char *id, int fd,
                              bool foreign)
{
    struct record_container *container = NULL;
    struct error *error = discovery->error;
    char path[CGROUP_PATH_SIZE];
    uint64_t memory = 0;

    int r = append_container(discovery, fd, foreign, &container);
    if (r != 0) {
        close_fd(fd);
        return r;
    }
    snprintf(container->id, sizeof container->id, "%s", id);
    int n = snprintf(path, sizeof path, "%s/%s", discovery->place->path, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return error_set(error, ENAMETOOLONG, "container %s", id);
    if (!(container->cgroup = strdup(path)))
        return error_set(error, ENOMEM, "container %s", id);
    r = cgroup_read_value(fd, "memory.current", &memory, error);
    if (r < 0 && r != -ENOENT)
        return r;
    container->memory_before = r == 0 ? memory : 0;
    return walk_group(&(struct group_walk){ .container = container, .error = error }, fd);
}

/* 1 and an open fd when `name` is a container that counts: it has processes, and is no sandbox. */
static int open_container(int pod_fd, bool systemd, const char *name,
                          char id[static CONTAINER_ID_SIZE], int *ret_fd,
                          struct kernfile_events *ret_events, struct error *error)
{
    cleanup(close_p) int fd = -1;

    if (!layout_container_id(systemd, name, id))
        return 0;
    int r = cgroup_open_child(pod_fd, name, &fd, error);
    if (r == 0)
        r = cgroup_read_events(fd, ret_events, error);
    if (cgroup_is_gone(r))
        return 0; /* it left while we looked */
    if (r < 0 || !ret_events->populated || cgroup_is_sandbox(fd))
        return r;
    *ret_fd = TAKE_FD(fd);
    return 1;
}

static int discover_child(int pod_fd, const char *name, void *userdata)
{
    struct discovery *discovery = userdata;
    struct error *error = discovery->error;
    struct kernfile_events events = { 0 };
    char id[CONTAINER_ID_SIZE];
    bool requested = false;
    int fd = -1;

    int r = open_container(pod_fd, discovery->place->systemd, name, id, &fd, &events, error);
    if (r <= 0)
        return r;
    r = cgroup_read_freeze(fd, &requested, error);
    if (r < 0) {
        close_fd(fd);
        return r;
    }
    return discover_container(discovery, name, id, fd, requested || discovery->frozen_above);
}

static bool is_asked_to_freeze(const struct cgroup_root *root, const char *path)
{
    cleanup(close_p) int fd = -1;
    bool requested = false;

    return cgroup_open(root, path, &fd, NULL) == 0 &&
           cgroup_read_freeze(fd, &requested, NULL) == 0 && requested;
}

/* The pod's group, or one above it. "frozen 1" would not tell: after a thaw it lasts until the
 * first task has run. */
static bool is_frozen_above(const struct cgroup_root *root, const char *pod_path)
{
    char path[CGROUP_PATH_SIZE], *slash;

    snprintf(path, sizeof path, "%s", pod_path);
    while (!is_asked_to_freeze(root, path)) {
        slash = strrchr(path, '/');
        if (!slash)
            return false;
        *slash = '\0';
    }
    return true;
}

static int discover_containers(struct pod_cgroups *pod, const struct layout *layout,
                               const struct layout_pod *place, struct error *error)
{
    struct discovery discovery = { .pod = pod, .place = place, .error = error };

    discovery.frozen_above = is_frozen_above(layout_cgroups(layout), place->path);
    int r = cgroup_for_each_child(pod->pod_fd, discover_child, &discovery, error);

    if (cgroup_is_gone(r))
        return error_outcome(error, POD_E_CHANGED, "a container went away while we looked");
    if (r == 0 && pod->record.n_containers == 0)
        return error_outcome(error, POD_E_EMPTY, "no container of the pod is running");
    return r;
}

int pod_discover(struct pod_cgroups *ret, const struct layout *layout, const char *uid,
                 struct error *error)
{
    struct pod_cgroups pod = { .pod_fd = -1 };
    struct layout_pod place = { .fd = -1 };

    int r = layout_find(layout, uid, &place, error);
    if (r != 0)
        return r == LAYOUT_E_NOT_FOUND ? POD_E_NOT_FOUND : r;
    pod.pod_fd = place.fd;
    pod.systemd = place.systemd;
    snprintf(pod.record.pod_uid, sizeof pod.record.pod_uid, "%s", uid);
    r = discover_containers(&pod, layout, &place, error);
    if (r != 0 && r != POD_E_EMPTY) {
        pod_clear(&pod);
        return r;
    }
    *ret = pod;
    return r;
}

/* ---- from a record ---- */

/* A group that is taken for gone is never thawed again, so it has to say so twice. */
static bool is_gone(int group_fd, int r)
{
    struct kernfile_events events;

    return cgroup_is_gone(r) && cgroup_is_gone(cgroup_read_events(group_fd, &events, NULL));
}

/* Opens `path` beneath a group; 0 and *ret_fd -1 when it is gone or another has taken its name. */
static int open_recorded(int group_fd, const char *path, uint64_t inode, int *ret_fd,
                         struct error *error)
{
    cleanup(close_p) int fd = -1;
    uint64_t found = 0;

    *ret_fd = -1;
    int r = cgroup_open_child(group_fd, path, &fd, error);
    if (cgroup_is_gone(r))
        r = cgroup_open_child(group_fd, path, &fd, error);
    if (r < 0)
        return cgroup_is_gone(r) ? 0 : r;
    r = cgroup_inode(fd, &found, error);
    if (r == 0 && found == inode)
        *ret_fd = TAKE_FD(fd);
    return r;
}

static void close_containers(struct pod_container *containers, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close_fd(containers[i].fd);
    free(containers);
}

int pod_open_recorded(struct pod_cgroups *ret, const struct cgroup_root *root,
                      const struct layout *layout, struct record *record, struct error *error)
{
    struct layout_pod place = { .fd = -1 };
    cleanup(close_p) int root_fd = -1;

    int r = cgroup_open(root, "", &root_fd, error);
    if (r < 0)
        return r;
    struct pod_container *containers = calloc(record->n_containers, sizeof *containers);
    if (!containers)
        return error_set(error, ENOMEM, "open pod %s", record->pod_uid);
    for (unsigned i = 0; i < record->n_containers; i++) {
        const struct record_container *container = &record->containers[i];
        r = open_recorded(root_fd, container->cgroup, container->groups[0].inode, &containers[i].fd,
                          error);
        if (r < 0) {
            close_containers(containers, i);
            return error_wrap(error, r, "container %s", container->id);
        }
    }
    r = layout_find(layout, record->pod_uid, &place, NULL);
    *ret = (struct pod_cgroups){ .pod_fd = r == 0 ? place.fd : -1,
                                 .systemd = place.systemd,
                                 .record = *record,
                                 .containers = containers };
    *record = (struct record){ 0 };
    return 0;
}

void pod_clear(struct pod_cgroups *pod)
{
    close_containers(pod->containers, pod->record.n_containers);
    close_fd(pod->pod_fd);
    record_clear(&pod->record);
    *pod = (struct pod_cgroups){ .pod_fd = -1 };
}

/* ---- writes ---- */

/* Writes `value` (NULL: the group's original) to memory.swap.max of one recorded group. */
static int write_swap_max(const struct pod_cgroups *pod, unsigned container,
                          const struct record_group *group, const char *value, struct error *error)
{
    cleanup(close_p) int fd = -1;

    if (*group->swap_max == '\0' || pod->containers[container].fd < 0)
        return 0;
    int r = open_recorded(pod->containers[container].fd, *group->path ? group->path : ".",
                          group->inode, &fd, error);
    if (r < 0 || fd < 0)
        return r;
    r = cgroup_write(fd, CGROUP_SWAP_MAX, value ? value : group->swap_max, error);
    return is_gone(fd, r) ? 0 : r;
}

static int write_all_swap_max(const struct pod_cgroups *pod, const char *value, struct error *error)
{
    struct error cause = ERROR_INIT;
    int first = 0;

    for (unsigned i = 0; i < pod->record.n_containers; i++) {
        const struct record_container *container = &pod->record.containers[i];
        for (unsigned k = 0; k < container->n_groups; k++) {
            int r = write_swap_max(pod, i, &container->groups[k], value, &cause);
            if (r < 0 && first == 0) {
                first = r;
                if (error)
                    *error = cause;
                error_wrap(error, r, "container %s", container->id);
            }
        }
    }
    return first;
}

int pod_allow_swap(const struct pod_cgroups *pod, struct error *error)
{
    return write_all_swap_max(pod, "max", error);
}

int pod_restore_swap(const struct pod_cgroups *pod, struct error *error)
{
    return write_all_swap_max(pod, NULL, error);
}

int pod_allow_swap_again(const struct pod_cgroups *pod, unsigned container, bool *ret_changed,
                         struct error *error)
{
    const struct record_container *recorded = &pod->record.containers[container];
    char now[SWAP_MAX_SIZE];

    *ret_changed = false;
    if (pod->containers[container].fd < 0 || *recorded->groups[0].swap_max == '\0')
        return 0;
    int r = cgroup_read_swap_max(pod->containers[container].fd, now, sizeof now, error);
    if (r < 0)
        return cgroup_is_gone(r) ? 0 : r;
    if (strcmp(now, "max") == 0)
        return 0;
    *ret_changed = true;
    return write_swap_max(pod, container, &recorded->groups[0], "max", error);
}

int pod_freeze(const struct pod_cgroups *pod, struct error *error)
{
    for (unsigned i = 0; i < pod->record.n_containers; i++) {
        int r = cgroup_write_freeze(pod->containers[i].fd, true, error);
        if (cgroup_is_gone(r))
            return error_outcome(error, POD_E_CHANGED, "container %s went away",
                                 pod->record.containers[i].id);
        if (r < 0)
            return error_wrap(error, r, "container %s", pod->record.containers[i].id);
    }
    return 0;
}

int pod_thaw(const struct pod_cgroups *pod, struct error *error)
{
    struct error cause = ERROR_INIT;
    int first = 0;

    for (unsigned i = 0; i < pod->record.n_containers; i++) {
        if (pod->containers[i].fd < 0)
            continue;
        int r = cgroup_write_freeze(pod->containers[i].fd, false, &cause);
        if (r < 0 && first == 0 && !is_gone(pod->containers[i].fd, r)) {
            first = r;
            if (error)
                *error = cause;
            error_wrap(error, r, "container %s", pod->record.containers[i].id);
        }
    }
    return first;
}

/* ---- reads ---- */

int pod_read_truth(const struct pod_cgroups *pod, struct pod_truth *ret, struct error *error)
{
    struct pod_truth truth = { 0 };

    for (unsigned i = 0; i < pod->record.n_containers; i++) {
        struct kernfile_events events = { 0 };
        bool requested = false;
        int fd = pod->containers[i].fd;
        if (fd < 0)
            continue;
        int r = cgroup_read_events(fd, &events, error);
        if (r == 0 && events.populated)
            r = cgroup_read_freeze(fd, &requested, error);
        if (is_gone(fd, r) || (r == 0 && !events.populated))
            continue;
        if (r < 0)
            return error_wrap(error, r, "container %s", pod->record.containers[i].id);
        truth.present++;
        truth.requested += requested;
        truth.frozen += requested && events.frozen;
    }
    *ret = truth;
    return 0;
}

static bool is_recorded(const struct pod_cgroups *pod, uint64_t inode)
{
    for (unsigned i = 0; i < pod->record.n_containers; i++)
        if (pod->record.containers[i].groups[0].inode == inode)
            return true;
    return false;
}

static int find_stranger(int pod_fd, const char *name, void *userdata)
{
    const struct pod_cgroups *pod = userdata;
    cleanup(close_p) int fd = -1;
    struct kernfile_events events = { 0 };
    char id[CONTAINER_ID_SIZE];
    uint64_t inode = 0;

    /* Most are known, and a sweep over a thousand pods looks at all of them. */
    int r = cgroup_child_inode(pod_fd, name, &inode, NULL);
    if (r < 0 || is_recorded(pod, inode))
        return cgroup_is_gone(r) ? 0 : r;
    return open_container(pod_fd, pod->systemd, name, id, &fd, &events, NULL);
}

int pod_find_stranger(const struct pod_cgroups *pod, bool *ret, struct error *error)
{
    int r = 0;

    if (pod->pod_fd >= 0)
        r = cgroup_for_each_child(pod->pod_fd, find_stranger, (void *)pod, error);
    if (r < 0 && !cgroup_is_gone(r))
        return error_set(error, -r, "look for new containers");
    *ret = r > 0;
    return 0;
}

/* Does this group's own limit leave less than `bytes` of swap? */
static bool limits_swap(const struct cgroup_root *root, const char *path, uint64_t bytes)
{
    cleanup(close_p) int fd = -1;
    uint64_t limit, used = 0;

    if (cgroup_open(root, path, &fd, NULL) < 0 ||
        cgroup_read_value(fd, CGROUP_SWAP_MAX, &limit, NULL) < 0 || limit == KERNFILE_MAX)
        return false;
    return cgroup_read_value(fd, "memory.swap.current", &used, NULL) < 0 || limit < used ||
           limit - used < bytes;
}

void pod_find_swap_limit(const struct pod_cgroups *pod, const struct cgroup_root *root,
                         uint64_t bytes, char path[static CGROUP_PATH_SIZE])
{
    snprintf(path, CGROUP_PATH_SIZE, "%s", pod->record.containers[0].cgroup);
    for (char *slash; (slash = strrchr(path, '/'));) {
        *slash = '\0';
        if (limits_swap(root, path, bytes))
            return;
    }
    *path = '\0';
}
