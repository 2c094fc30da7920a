#include "agent/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "agent/limits.h"

struct cgroup_root {
    int fd;
    bool has_memory;
    char path[];
};

/* ---- the root ---- */

static int check_filesystem(int fd, const char *path, struct error *error)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return error_set(error, errno, "statfs %s", path);
    if (fs.f_type != CGROUP2_SUPER_MAGIC)
        return error_set(error, EINVAL, "%s is not on a cgroup v2 file system", path);
    return 0;
}

static bool find_memory_controller(int fd)
{
    char text[1024];

    return cgroup_read(fd, "cgroup.controllers", text, sizeof text, NULL) == 0 &&
           kernfile_has_word(text, "memory");
}

int cgroup_root_open(struct cgroup_root **ret, const char *path, int flags, struct error *error)
{
    cleanup(close_p) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct cgroup_root *root;

    if (fd < 0)
        return error_set(error, errno, "open %s", path);
    if (!(flags & CGROUP_ROOT_ANY_FS)) {
        int r = check_filesystem(fd, path, error);
        if (r < 0)
            return r;
    }
    root = calloc(1, sizeof *root + strlen(path) + 1);
    if (!root)
        return error_set(error, ENOMEM, "open %s", path);
    strcpy(root->path, path);
    root->has_memory = find_memory_controller(fd);
    root->fd = TAKE_FD(fd);
    *ret = root;
    return 0;
}

struct cgroup_root *cgroup_root_close(struct cgroup_root *root)
{
    if (root)
        close_fd(root->fd);
    free(root);
    return NULL;
}

const char *cgroup_root_path(const struct cgroup_root *root)
{
    return root->path;
}

bool cgroup_root_has_memory(const struct cgroup_root *root)
{
    return root->has_memory;
}

/* ---- groups ---- */

static int open_beneath(int dir_fd, const char *path, int *ret_fd, struct error *error)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);

    if (fd < 0)
        return error_set(error, errno, "open cgroup %s", path);
    *ret_fd = fd;
    return 0;
}

int cgroup_open(const struct cgroup_root *root, const char *path, int *ret_fd, struct error *error)
{
    return open_beneath(root->fd, *path ? path : ".", ret_fd, error);
}

int cgroup_open_child(int group_fd, const char *name, int *ret_fd, struct error *error)
{
    return open_beneath(group_fd, name, ret_fd, error);
}

int cgroup_create(const struct cgroup_root *root, const char *name, int *ret_fd,
                  struct error *error)
{
    if (mkdirat(root->fd, name, 0755) < 0 && errno != EEXIST)
        return error_set(error, errno, "make cgroup %s", name);
    return cgroup_open(root, name, ret_fd, error);
}

int cgroup_destroy(const struct cgroup_root *root, const char *name, struct error *error)
{
    if (unlinkat(root->fd, name, AT_REMOVEDIR) < 0)
        return error_set(error, errno, "remove cgroup %s", name);
    return 0;
}

int cgroup_inode(int group_fd, uint64_t *ret, struct error *error)
{
    struct stat st;

    if (fstat(group_fd, &st) < 0)
        return error_set(error, errno, "stat cgroup");
    *ret = st.st_ino;
    return 0;
}

int cgroup_child_inode(int group_fd, const char *name, uint64_t *ret, struct error *error)
{
    struct stat st;

    if (fstatat(group_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(error, errno, "stat cgroup %s", name);
    *ret = st.st_ino;
    return 0;
}

int cgroup_for_each_child(int group_fd,
                          int (*callback)(int group_fd, const char *name, void *userdata),
                          void *userdata, struct error *error)
{
    cleanup(close_p) int fd = openat(group_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, errno, "open cgroup directory");

    cleanup(closedir_p) DIR *dir = fdopendir(fd);
    if (!dir)
        return error_set(error, errno, "read cgroup directory");
    TAKE_FD(fd);

    struct dirent *entry;
    while ((errno = 0, entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        int r = callback(group_fd, entry->d_name, userdata);
        if (r != 0)
            return r;
    }
    return errno ? error_set(error, errno, "read cgroup directory") : 0;
}

/* ---- files ---- */

int cgroup_read(int group_fd, const char *file, char *buffer, size_t size, struct error *error)
{
    cleanup(close_p) int fd = openat(group_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(error, errno, "open %s", file);

    ssize_t n = read(fd, buffer, size - 1);
    if (n < 0)
        return error_set(error, errno, "read %s", file);
    if ((size_t)n == size - 1)
        return error_set(error, EMSGSIZE, "read %s", file);
    buffer[n] = '\0';
    return 0;
}

int cgroup_read_value(int group_fd, const char *file, uint64_t *ret, struct error *error)
{
    char text[64];
    int r = cgroup_read(group_fd, file, text, sizeof text, error);

    if (r < 0)
        return r;
    r = kernfile_parse_value(text, ret);
    return r < 0 ? error_set(error, -r, "parse %s", file) : 0;
}

int cgroup_read_events(int group_fd, struct kernfile_events *ret, struct error *error)
{
    char text[256];
    int r = cgroup_read(group_fd, CGROUP_EVENTS, text, sizeof text, error);

    if (r < 0)
        return r;
    r = kernfile_parse_events(text, ret);
    return r < 0 ? error_set(error, -r, "parse " CGROUP_EVENTS) : 0;
}

int cgroup_write(int group_fd, const char *file, const char *text, struct error *error)
{
    cleanup(close_p) int fd = openat(group_fd, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(error, errno, "open %s", file);

    if (write(fd, text, strlen(text)) < 0)
        return error_set(error, errno, "write \"%s\" to %s", text, file);
    return 0;
}

int cgroup_read_freeze(int group_fd, bool *ret, struct error *error)
{
    uint64_t value;
    int r = cgroup_read_value(group_fd, CGROUP_FREEZE, &value, error);

    if (r < 0)
        return r;
    *ret = value != 0;
    return 0;
}

int cgroup_write_freeze(int group_fd, bool freeze, struct error *error)
{
    return cgroup_write(group_fd, CGROUP_FREEZE, freeze ? "1" : "0", error);
}

int cgroup_read_swap_max(int group_fd, char *buffer, size_t size, struct error *error)
{
    uint64_t value;
    int r = cgroup_read(group_fd, CGROUP_SWAP_MAX, buffer, size, error);

    if (r < 0)
        return r;
    r = kernfile_parse_value(buffer, &value);
    if (r < 0)
        return error_set(error, -r, "parse " CGROUP_SWAP_MAX);
    buffer[strcspn(buffer, "\n")] = '\0';
    return 0;
}

int cgroup_reclaim(int group_fd, uint64_t bytes, struct error *error)
{
    char text[SWAP_MAX_SIZE];
    struct error cause = ERROR_INIT;
    int r;

    snprintf(text, sizeof text, "%" PRIu64, bytes);
    r = cgroup_write(group_fd, "memory.reclaim", text, &cause);
    if (r == -EAGAIN)
        return error_outcome(error, CGROUP_E_DRY, "nothing more to reclaim");
    if (r < 0 && error)
        *error = cause;
    return r;
}

/* ---- processes ---- */

bool cgroup_holds_self(int group_fd)
{
    cleanup(close_p) int fd = openat(group_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    cleanup(free_p) char *line = NULL;
    size_t size = 0;
    bool found = false;

    FILE *file = fd < 0 ? NULL : fdopen(fd, "re");
    if (!file)
        return false;
    TAKE_FD(fd);
    while (!found && getline(&line, &size, file) > 0)
        found = atoi(line) == getpid();
    fclose(file);
    return found;
}

/* ---- a group and those below it ---- */

/* Visits a group's own files, then those of its children, not deeper and not more than we have
 * bounds for. */
struct subtree {
    int (*visit)(int group_fd, void *userdata);
    void *userdata;
    unsigned depth, groups;
};

static int visit_child(int group_fd, const char *name, void *userdata);

static int visit_subtree(struct subtree *subtree, int group_fd)
{
    if (++subtree->groups > CONTAINER_GROUPS_MAX || subtree->depth > CONTAINER_DEPTH_MAX)
        return 0;
    int r = subtree->visit(group_fd, subtree->userdata);
    if (r != 0)
        return r;
    subtree->depth++;
    r = cgroup_for_each_child(group_fd, visit_child, subtree, NULL);
    subtree->depth--;
    return r;
}

static int visit_child(int group_fd, const char *name, void *userdata)
{
    cleanup(close_p) int fd = -1;

    return cgroup_open_child(group_fd, name, &fd, NULL) < 0 ? 0 : visit_subtree(userdata, fd);
}

struct pid_list {
    pid_t *pids;
    unsigned n, max;
};

/* A threaded group has no list of processes (EOPNOTSUPP): they are in the one above. */
static int list_pids(int group_fd, void *userdata)
{
    struct pid_list *list = userdata;
    int fd = openat(group_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "re");
    cleanup(free_p) char *line = NULL;
    size_t size = 0;

    if (!file) {
        close_fd(fd);
        return 0;
    }
    while (list->n < list->max && getline(&line, &size, file) > 0)
        list->pids[list->n++] = atoi(line);
    fclose(file);
    return list->n == list->max;
}

unsigned cgroup_list_pids(int group_fd, pid_t *pids, unsigned max)
{
    struct pid_list list = { .pids = pids, .max = max };
    struct subtree subtree = { .visit = list_pids, .userdata = &list };

    visit_subtree(&subtree, group_fd);
    return list.n;
}

pid_t cgroup_first_pid(int group_fd)
{
    pid_t pid = 0;

    cgroup_list_pids(group_fd, &pid, 1);
    return pid;
}

bool cgroup_is_sandbox(int group_fd)
{
    char path[64], comm[32] = "";
    pid_t pids[2];

    if (cgroup_list_pids(group_fd, pids, ARRAY_SIZE(pids)) != 1 || pids[0] <= 0)
        return false;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pids[0]);
    cleanup(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, comm, sizeof comm - 1) <= 0)
        return false;
    return strcmp(comm, "pause\n") == 0;
}

/* What may be charged before `file` is reached. */
static uint64_t room_below(int group_fd, const char *file)
{
    uint64_t limit, used;

    if (cgroup_read_value(group_fd, file, &limit, NULL) < 0 || limit == KERNFILE_MAX ||
        cgroup_read_value(group_fd, "memory.current", &used, NULL) < 0)
        return KERNFILE_MAX;
    uint64_t margin = limit / CHARGE_MARGIN_SHARE;
    if (margin < CHARGE_MARGIN_MIN)
        margin = CHARGE_MARGIN_MIN;
    return limit > used + margin ? limit - used - margin : 0;
}

static int take_least_room(int group_fd, void *userdata)
{
    uint64_t *least = userdata;
    uint64_t max = room_below(group_fd, "memory.max"), high = room_below(group_fd, "memory.high");

    if (max < *least)
        *least = max;
    if (high < *least)
        *least = high;
    return 0;
}

uint64_t cgroup_room(int group_fd)
{
    uint64_t least = KERNFILE_MAX;
    struct subtree subtree = { .visit = take_least_room, .userdata = &least };

    visit_subtree(&subtree, group_fd);
    return least;
}

uint64_t cgroup_own_room(int group_fd)
{
    uint64_t least = KERNFILE_MAX;

    take_least_room(group_fd, &least);
    return least;
}

/* ---- watches ---- */

int cgroup_watch(int inotify_fd, int group_fd, const char *file, uint32_t mask, struct error *error)
{
    char path[128];

    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", group_fd, file ? file : "");
    int wd = inotify_add_watch(inotify_fd, path, mask);
    return wd < 0 ? error_set(error, errno, "watch %s", file ? file : "cgroup") : wd;
}
