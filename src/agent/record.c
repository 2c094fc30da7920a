#include "agent/record.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "agent/kernfile.h"
#include "agent/layout.h"

const char *const reclaim_mode_names[] = {
    [RECLAIM_WAIT] = "wait", [RECLAIM_BACKGROUND] = "background", [RECLAIM_OFF] = "off", NULL
};

const char *const wake_on_names[] = { [WAKE_ON_REQUEST] = "request",
                                      [WAKE_ON_CONNECT] = "connect",
                                      [WAKE_ON_DATA] = "data",
                                      [WAKE_ON_NONE] = "none",
                                      NULL };

static void decref_p(json_t **json)
{
    json_decref(*json);
}

/* ---- the struct ---- */

void record_clear(struct record *record)
{
    for (unsigned i = 0; i < record->n_containers; i++) {
        free(record->containers[i].cgroup);
        free(record->containers[i].groups);
    }
    free(record->containers);
    *record = (struct record){ 0 };
}

struct record_container *record_add_container(struct record *record)
{
    struct record_container *grown =
        reallocarray(record->containers, record->n_containers + 1, sizeof *grown);

    if (!grown)
        return NULL;
    record->containers = grown;
    grown += record->n_containers++;
    *grown = (struct record_container){ 0 };
    return grown;
}

struct record_group *record_add_group(struct record_container *container)
{
    struct record_group *grown =
        reallocarray(container->groups, container->n_groups + 1, sizeof *grown);

    if (!grown)
        return NULL;
    container->groups = grown;
    grown += container->n_groups++;
    *grown = (struct record_group){ 0 };
    return grown;
}

/* ---- to text ---- */

/* FNV-1a; http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t checksum(const char *text, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
    return hash;
}

/* Inodes and generations may exceed 2^53: jansson keeps 64-bit integers, and so does whoever reads
 * them as text. */
static json_t *group_to_json(const struct record_group *group)
{
    return json_pack("{ss sI ss}", "path", group->path, "inode", (json_int_t)group->inode,
                     "swap_max", group->swap_max);
}

static json_t *container_to_json(const struct record_container *container)
{
    json_t *groups = json_array();

    for (unsigned i = 0; i < container->n_groups; i++)
        if (json_array_append_new(groups, group_to_json(&container->groups[i])) < 0) {
            json_decref(groups);
            return NULL;
        }
    return json_pack("{ss ss sI so}", "id", container->id, "cgroup", container->cgroup,
                     "memory_before", (json_int_t)container->memory_before, "groups", groups);
}

static json_t *record_to_json(const struct record *record)
{
    json_t *containers = json_array();

    for (unsigned i = 0; i < record->n_containers; i++)
        if (json_array_append_new(containers, container_to_json(&record->containers[i])) < 0) {
            json_decref(containers);
            return NULL;
        }
    return json_pack("{si ss ss ss sI ss sI ss sI so}", "version", RECORD_VERSION, "pod_uid",
                     record->pod_uid, "boot_id", record->boot_id, "group", record->group,
                     "generation", (json_int_t)record->generation, "reclaim",
                     reclaim_mode_names[record->reclaim], "reclaim_after",
                     (json_int_t)record->reclaim_after, "wake_on", wake_on_names[record->wake_on],
                     "frozen_at_usec", (json_int_t)record->frozen_at_usec, "containers",
                     containers);
}

int record_encode(const struct record *record, char **ret, size_t *ret_len, struct error *error)
{
    cleanup(decref_p) json_t *json = record_to_json(record);
    cleanup(free_p) char *line = json ? json_dumps(json, JSON_COMPACT) : NULL;

    if (!line) /* what is left out of a record would never be thawed after a crash */
        return error_set(error, EILSEQ,
                         "write the record of pod %s: no memory, or a cgroup's name is no UTF-8",
                         record->pod_uid);
    if (strlen(line) > RECORD_SIZE_MAX - 32)
        return error_set(error, EFBIG, "write the record of pod %s", record->pod_uid);
    int n = asprintf(ret, "%s\n%016" PRIx64 "\n", line, checksum(line, strlen(line)));
    if (n < 0)
        return error_set(error, ENOMEM, "write the record of pod %s", record->pod_uid);
    *ret_len = (size_t)n;
    return 0;
}

/* ---- from text ---- */

static bool copy_string(char *to, size_t size, const char *from)
{
    size_t len = strlen(from);

    if (len >= size)
        return false;
    memcpy(to, from, len + 1);
    return true;
}

static bool find_name(const char *const *names, const char *name, int *ret)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

static bool is_limit(const char *text)
{
    uint64_t value;

    return *text == '\0' || (!strchr(text, '\n') && kernfile_parse_value(text, &value) == 0);
}

/* What a record names is opened beneath the cgroup root by openat2, which lets no ".." leave it. A
 * group may well be called "a..b". */
static bool is_group_path(const char *path)
{
    if (*path == '/')
        return false;
    for (const char *name = path;; name++) {
        size_t len = strcspn(name, "/");
        if (len == 2 && strncmp(name, "..", 2) == 0)
            return false;
        name += len;
        if (!*name)
            return true;
    }
}

static bool group_from_json(struct record_container *container, json_t *json)
{
    const char *path, *swap_max;
    json_int_t inode;
    struct record_group *group;

    if (json_unpack(json, "{ss sI ss}", "path", &path, "inode", &inode, "swap_max", &swap_max) < 0)
        return false;
    if (container->n_groups == CONTAINER_GROUPS_MAX || !is_group_path(path) || !is_limit(swap_max))
        return false;
    group = record_add_group(container);
    if (!group)
        return false;
    group->inode = (uint64_t)inode;
    return copy_string(group->path, sizeof group->path, path) &&
           copy_string(group->swap_max, sizeof group->swap_max, swap_max);
}

static bool container_from_json(struct record *record, json_t *json)
{
    const char *id, *cgroup;
    json_int_t memory_before;
    json_t *groups, *item;
    size_t i;

    if (json_unpack(json, "{ss ss sI so}", "id", &id, "cgroup", &cgroup, "memory_before",
                    &memory_before, "groups", &groups) < 0)
        return false;
    struct record_container *container =
        record->n_containers < POD_CONTAINERS_MAX ? record_add_container(record) : NULL;
    if (!container || !copy_string(container->id, sizeof container->id, id) ||
        strlen(cgroup) >= CGROUP_PATH_SIZE || !is_group_path(cgroup) ||
        !(container->cgroup = strdup(cgroup)))
        return false;
    container->memory_before = (uint64_t)memory_before;
    json_array_foreach(groups, i, item) if (!group_from_json(container, item)) return false;
    return container->n_groups > 0;
}

static bool record_from_json(struct record *record, json_t *json)
{
    const char *uid, *boot_id, *group, *reclaim, *wake_on;
    json_int_t generation, reclaim_after, frozen_at;
    json_t *containers, *item;
    int reclaim_mode, wake_mode;
    size_t i;

    if (json_unpack(json, "{ss ss ss sI ss sI ss sI so}", "pod_uid", &uid, "boot_id", &boot_id,
                    "group", &group, "generation", &generation, "reclaim", &reclaim,
                    "reclaim_after", &reclaim_after, "wake_on", &wake_on, "frozen_at_usec",
                    &frozen_at, "containers", &containers) < 0)
        return false;
    if (layout_check_uid(uid) || !find_name(reclaim_mode_names, reclaim, &reclaim_mode) ||
        !find_name(wake_on_names, wake_on, &wake_mode) ||
        !copy_string(record->pod_uid, sizeof record->pod_uid, uid) ||
        !copy_string(record->boot_id, sizeof record->boot_id, boot_id) ||
        !copy_string(record->group, sizeof record->group, group))
        return false;
    record->reclaim = (enum reclaim_mode)reclaim_mode;
    record->wake_on = (enum wake_on)wake_mode;
    record->generation = (uint64_t)generation;
    record->reclaim_after = (uint64_t)reclaim_after;
    record->frozen_at_usec = (uint64_t)frozen_at;
    json_array_foreach(containers, i, item) if (!container_from_json(record, item)) return false;
    return record->n_containers > 0;
}

/* The length of the JSON line when the checksum below it is right, else 0. */
static size_t check_frame(const char *text, size_t len)
{
    const char *newline = memchr(text, '\n', len);
    char expected[18];

    if (!newline)
        return 0;
    size_t line = (size_t)(newline - text);
    snprintf(expected, sizeof expected, "%016" PRIx64 "\n", checksum(text, line));
    if (len - line - 1 != strlen(expected) || memcmp(newline + 1, expected, strlen(expected)) != 0)
        return 0;
    return line;
}

int record_decode(const char *text, size_t len, struct record *ret, struct error *error)
{
    size_t line = check_frame(text, len);
    cleanup(decref_p) json_t *json =
        line ? json_loadb(text, line, JSON_REJECT_DUPLICATES, NULL) : NULL;
    struct record record = { 0 };
    json_int_t version;

    if (!json || json_unpack(json, "{sI}", "version", &version) < 0)
        return error_outcome(error, RECORD_E_CORRUPT, "the record is cut short or damaged");
    if (version != RECORD_VERSION)
        return error_outcome(error, RECORD_E_VERSION, "the record has version %lld, not %d",
                             (long long)version, RECORD_VERSION);
    if (!record_from_json(&record, json)) {
        record_clear(&record);
        return error_outcome(error, RECORD_E_CORRUPT, "the record lacks what a record has");
    }
    *ret = record;
    return 0;
}

int record_boot_id(char ret[static 40], struct error *error)
{
    cleanup(close_p) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, 39);

    if (n < 0)
        return error_set(error, errno, "read /proc/sys/kernel/random/boot_id");
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return 0;
}
