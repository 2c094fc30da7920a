#include "agent/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "agent/layout.h"
#include "common/file.h"

#define SUFFIX     ".json"
#define UNREADABLE ".unreadable"
#define NAME_SIZE  (POD_UID_SIZE + sizeof SUFFIX + sizeof UNREADABLE)

struct store {
    int dir_fd;
    int lock_fd;
};

/* ---- open ---- */

/* mkdir -p; what exists is left as it is. */
static int make_directories(const char *path, struct error *error)
{
    char partial[4096];

    if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial)
        return error_set(error, ENAMETOOLONG, "make %s", path);
    for (char *p = partial + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(partial, 0700) < 0 && errno != EEXIST && errno != EROFS)
            return error_set(error, errno, "make %s", partial);
        if (!end)
            return 0;
        *p = end;
    }
}

/* A read-only directory has nobody else who writes to it. */
static int take_lock(struct store *store, const char *path, struct error *error)
{
    store->lock_fd =
        openat(store->dir_fd, ".lock", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock_fd < 0)
        return errno == EROFS || errno == ENOSPC || errno == EACCES
                   ? 0
                   : error_set(error, errno, "open %s/.lock", path);
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return error_set(error, EBUSY, "another agent uses the state directory %s", path);
    return error_set(error, errno, "lock %s", path);
}

static int prepare(struct store *store, const char *path, int flags, struct error *error)
{
    int r = make_directories(path, error);

    if (r < 0)
        return r;
    store->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dir_fd < 0)
        return error_set(error, errno, "open the state directory %s", path);
    if (flags & STORE_SHARED)
        return 0;
    r = take_lock(store, path, error);
    if (r < 0)
        return r;
    r = file_remove_temporaries(store->dir_fd, error);
    return r == -EROFS ? 0 : r;
}

int store_open(struct store **ret, const char *path, int flags, struct error *error)
{
    struct store *store = calloc(1, sizeof *store);

    if (!store)
        return error_set(error, ENOMEM, "open the state directory");
    store->dir_fd = store->lock_fd = -1;
    int r = prepare(store, path, flags, error);
    if (r < 0) {
        store_close(store);
        return r;
    }
    *ret = store;
    return 0;
}

struct store *store_close(struct store *store)
{
    if (store) {
        close_fd(store->lock_fd);
        close_fd(store->dir_fd);
    }
    free(store);
    return NULL;
}

/* ---- records ---- */

static void record_name(char name[static NAME_SIZE], const char *uid)
{
    snprintf(name, NAME_SIZE, "%.*s" SUFFIX, POD_UID_SIZE - 1, uid);
}

int store_put_text(struct store *store, const char *uid, const char *text, size_t len,
                   struct error *error)
{
    char name[NAME_SIZE];

    record_name(name, uid);
    return file_replace(store->dir_fd, name, text, len, error);
}

int store_put(struct store *store, const struct record *record, struct error *error)
{
    cleanup(free_p) char *text = NULL;
    size_t len;
    int r = record_encode(record, &text, &len, error);

    return r < 0 ? r : store_put_text(store, record->pod_uid, text, len, error);
}

int store_remove(struct store *store, const char *uid, struct error *error)
{
    char name[NAME_SIZE];

    record_name(name, uid);
    return file_remove(store->dir_fd, name, error);
}

int store_set_aside(struct store *store, const char *uid, struct error *error)
{
    char name[NAME_SIZE], aside[NAME_SIZE];

    record_name(name, uid);
    snprintf(aside, sizeof aside, "%.*s" SUFFIX UNREADABLE, POD_UID_SIZE - 1, uid);
    if (renameat(store->dir_fd, name, store->dir_fd, aside) < 0 || fsync(store->dir_fd) < 0)
        return error_set(error, errno, "set aside the record %s", name);
    return 0;
}

int store_get(struct store *store, const char *uid, struct record *ret, struct error *error)
{
    cleanup(free_p) char *text = NULL;
    char name[NAME_SIZE];
    size_t len;

    record_name(name, uid);
    int r = file_read(store->dir_fd, name, RECORD_SIZE_MAX, &text, &len, error);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return RECORD_E_CORRUPT; /* too large, no file, a symbolic link: none of ours */
    if (r < 0)
        return r;
    r = record_decode(text, len, ret, error);
    if (r == 0 && strcmp(ret->pod_uid, uid) != 0) {
        record_clear(ret);
        return error_outcome(error, RECORD_E_CORRUPT, "the record is about another pod");
    }
    return r;
}

/* Is this the name of a record? Then its UID. */
static bool parse_name(const char *name, char uid[static POD_UID_SIZE])
{
    const char *dot = strchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : 0;

    if (!len || len >= POD_UID_SIZE || strcmp(dot, SUFFIX) != 0)
        return false;
    memcpy(uid, name, len);
    uid[len] = '\0';
    return layout_check_uid(uid) == NULL;
}

int store_for_each(struct store *store, int (*callback)(const char *uid, void *userdata),
                   void *userdata, struct error *error)
{
    cleanup(close_p) int fd = openat(store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(closedir_p) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir)
        return error_set(error, errno, "read the state directory");
    TAKE_FD(fd);
    while ((errno = 0, entry = readdir(dir))) {
        char uid[POD_UID_SIZE];
        if (!parse_name(entry->d_name, uid))
            continue;
        int r = callback(uid, userdata);
        if (r != 0)
            return r;
    }
    return errno ? error_set(error, errno, "read the state directory") : 0;
}

int store_probe(struct store *store, struct error *error)
{
    int r = file_replace(store->dir_fd, ".probe", "\n", 1, error);

    return r < 0 ? r : file_remove(store->dir_fd, ".probe", error);
}
