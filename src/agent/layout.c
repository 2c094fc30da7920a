#include "agent/layout.h"

#include <string.h>

struct layout_root {
    bool systemd;
    char path[CGROUP_PATH_SIZE];
    char prefix[128]; /* of the slices' names: "kubepods", "kubelet-kubepods" */
};

struct layout {
    const struct cgroup_root *cgroups;
    unsigned n_roots;
    struct layout_root roots[LAYOUT_ROOTS_MAX];
};

/* Guaranteed pods live directly below the root. */
static const char *const qos_classes[] = { "", "burstable", "besteffort" };

/* ---- names ---- */

static bool is_hex(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr("0123456789abcdef", text[i]) || !text[i])
            return false;
    return true;
}

static bool is_uuid(const char *uid)
{
    static const size_t groups[] = { 8, 4, 4, 4, 12 };

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (!is_hex(uid, groups[i]))
            return false;
        uid += groups[i];
        if (*uid++ != (i + 1 < ARRAY_SIZE(groups) ? '-' : '\0'))
            return false;
    }
    return true;
}

const char *layout_check_uid(const char *uid)
{
    if (is_uuid(uid) || (strlen(uid) == 32 && is_hex(uid, 32)))
        return NULL;
    return "is not a pod UID (a lower-case UUID, or 32 hex digits for a static pod)";
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

bool layout_container_id(bool systemd, const char *name, char id[static CONTAINER_ID_SIZE])
{
    const char *suffix = systemd ? ".scope" : "";
    const char *start = strrchr(name, '-');
    size_t len;

    if (strncmp(name, "crio-conmon-", strlen("crio-conmon-")) == 0 || !has_suffix(name, suffix))
        return false;
    start = start ? start + 1 : name;
    len = strlen(start) - strlen(suffix);
    if (len == 0 || len >= CONTAINER_ID_SIZE)
        return false;
    memcpy(id, start, len);
    id[len] = '\0';
    return true;
}

/* ---- roots ---- */

/* Fills systemd and prefix when a directory of that name is a kubelet's root. */
static bool parse_root_name(const char *name, struct layout_root *root)
{
    size_t len = strlen(name);

    root->systemd = has_suffix(name, ".slice");
    if (root->systemd)
        len -= strlen(".slice");
    if (len >= sizeof root->prefix)
        return false;
    memcpy(root->prefix, name, len);
    root->prefix[len] = '\0';
    return root->systemd
               ? strcmp(root->prefix, "kubepods") == 0 || has_suffix(root->prefix, "-kubepods")
               : strcmp(root->prefix, "kubepods") == 0;
}

/* A walk from the cgroup root down that looks at one depth only. It is repeated for each depth, so
 * that the roots near the top are found however large the rest of the tree is. */
struct search {
    struct layout *layout;
    char path[CGROUP_PATH_SIZE];
    unsigned depth;  /* where it is */
    unsigned wanted; /* where it looks for roots */
    unsigned budget; /* directories that it may still open */
};

static int search_child(int group_fd, const char *name, void *userdata);

static int search_below(struct search *search, int group_fd)
{
    int r = 0;

    if (search->depth < search->wanted && search->budget > 0) {
        search->depth++;
        search->budget--;
        r = cgroup_for_each_child(group_fd, search_child, search, NULL);
        search->depth--;
    }
    return cgroup_is_gone(r) ? 0 : r;
}

static void add_root(struct search *search, struct layout_root *root)
{
    struct layout *layout = search->layout;

    if (layout->n_roots == LAYOUT_ROOTS_MAX)
        return;
    snprintf(root->path, sizeof root->path, "%s", search->path);
    layout->roots[layout->n_roots++] = *root;
}

static int search_child(int group_fd, const char *name, void *userdata)
{
    struct search *search = userdata;
    size_t len = strlen(search->path);
    struct layout_root root;
    int r = 0;

    if (len + strlen(name) + 2 > sizeof search->path)
        return 0;
    sprintf(search->path + len, "%s%s", len ? "/" : "", name);
    bool is_root = parse_root_name(name, &root);
    if (is_root && search->depth == search->wanted) {
        add_root(search, &root);
    } else if (!is_root && search->depth < search->wanted && search->budget > 0) {
        cleanup(close_p) int fd = -1;
        if (cgroup_open_child(group_fd, name, &fd, NULL) == 0)
            r = search_below(search, fd);
    }
    search->path[len] = '\0';
    return r;
}

int layout_refresh(struct layout *layout, struct error *error)
{
    struct search search = { .layout = layout, .budget = LAYOUT_SEARCH_MAX };
    cleanup(close_p) int fd = -1;
    int r = cgroup_open(layout->cgroups, "", &fd, error);

    if (r < 0)
        return r;
    layout->n_roots = 0;
    for (search.wanted = 1; r == 0 && search.wanted <= LAYOUT_DEPTH_MAX; search.wanted++)
        r = search_below(&search, fd);
    return r < 0 ? error_set(error, -r, "search the kubelet's cgroups") : 0;
}

int layout_open(struct layout **ret, const struct cgroup_root *root, struct error *error)
{
    struct layout *layout = calloc(1, sizeof *layout);

    if (!layout)
        return error_set(error, ENOMEM, "search the kubelet's cgroups");
    layout->cgroups = root;
    int r = layout_refresh(layout, error);
    if (r < 0) {
        layout_close(layout);
        return r;
    }
    *ret = layout;
    return 0;
}

struct layout *layout_close(struct layout *layout)
{
    free(layout);
    return NULL;
}

const struct cgroup_root *layout_cgroups(const struct layout *layout)
{
    return layout->cgroups;
}

unsigned layout_n_roots(const struct layout *layout)
{
    return layout->n_roots;
}

const char *layout_root_path(const struct layout *layout, unsigned i)
{
    return layout->roots[i].path;
}

/* ---- pods ---- */

static int pod_path_systemd(const struct layout_root *root, const char *qos, const char *uid,
                            char *path, size_t size)
{
    const char *dash = *qos ? "-" : "";
    char escaped[POD_UID_SIZE], qos_slice[160] = "";

    snprintf(escaped, sizeof escaped, "%s", uid);
    for (char *p = escaped; *p; p++)
        if (*p == '-')
            *p = '_';
    if (*qos)
        snprintf(qos_slice, sizeof qos_slice, "%s-%s.slice/", root->prefix, qos);
    return snprintf(path, size, "%s/%s%s%s%s-pod%s.slice", root->path, qos_slice, root->prefix,
                    dash, qos, escaped);
}

static int pod_path_cgroupfs(const struct layout_root *root, const char *qos, const char *uid,
                             char *path, size_t size)
{
    return snprintf(path, size, "%s/%s%spod%s", root->path, qos, *qos ? "/" : "", uid);
}

static int try_root(const struct layout *layout, const struct layout_root *root, const char *uid,
                    struct layout_pod *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(qos_classes); i++) {
        int n = (root->systemd ? pod_path_systemd : pod_path_cgroupfs)(root, qos_classes[i], uid,
                                                                       ret->path, sizeof ret->path);
        if (n < 0 || (size_t)n >= sizeof ret->path)
            continue;
        int r = cgroup_open(layout->cgroups, ret->path, &ret->fd, NULL);
        if (r == 0) {
            ret->systemd = root->systemd;
            return 0;
        }
        if (!cgroup_is_gone(r))
            return r;
    }
    return LAYOUT_E_NOT_FOUND;
}

int layout_find(const struct layout *layout, const char *uid, struct layout_pod *ret,
                struct error *error)
{
    for (unsigned i = 0; i < layout->n_roots; i++) {
        int r = try_root(layout, &layout->roots[i], uid, ret);
        if (r == 0)
            return 0;
        if (r < 0)
            return error_set(error, -r, "open the cgroup of pod %s", uid);
    }
    return error_outcome(error, LAYOUT_E_NOT_FOUND, "no cgroup of pod %s on this node", uid);
}
