#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define TEMP_PREFIX_LEN (sizeof(FILE_TEMP_PREFIX) - 1)

static bool is_temporary(const char *name)
{
    return strncmp(name, FILE_TEMP_PREFIX, TEMP_PREFIX_LEN) == 0;
}

static int check_name(const char *name, struct error *error)
{
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(error, EINVAL, "file name '%s'", name);
    return 0;
}

/* ---- system calls that a signal may interrupt ---- */

static int open_retry(int dir_fd, const char *name, int flags, mode_t mode)
{
    return TEMP_FAILURE_RETRY(openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC, mode));
}

static int fsync_retry(int fd)
{
    return TEMP_FAILURE_RETRY(fsync(fd));
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(write(fd, data, len));
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- replace ---- */

static int make_temp_name(char temp[static NAME_MAX + 1], const char *name, struct error *error)
{
    int r = check_name(name, error);
    if (r < 0)
        return r;
    /* It would be taken for what a crash left behind. */
    if (is_temporary(name))
        return error_set(error, EINVAL, "file name '%s'", name);
    if (snprintf(temp, NAME_MAX + 1, FILE_TEMP_PREFIX "%s", name) > NAME_MAX)
        return error_set(error, ENAMETOOLONG, "file name '%s'", name);
    return 0;
}

static int write_temp(int dir_fd, const char *temp, const void *data, size_t len,
                      struct error *error)
{
    if (unlinkat(dir_fd, temp, 0) < 0 && errno != ENOENT)
        return error_set(error, errno, "remove stale %s", temp);

    cleanup(close_p) int fd = open_retry(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return error_set(error, errno, "create %s", temp);
    if (write_all(fd, data, len) < 0)
        return error_set(error, errno, "write %s", temp);
    if (fsync_retry(fd) < 0)
        return error_set(error, errno, "fsync %s", temp);
    return 0;
}

int file_replace(int dir_fd, const char *name, const void *data, size_t len, struct error *error)
{
    char temp[NAME_MAX + 1];

    int r = make_temp_name(temp, name, error);
    if (r < 0)
        return r;

    r = write_temp(dir_fd, temp, data, len, error);
    if (r == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
        r = error_set(error, errno, "rename %s to %s", temp, name);
    if (r < 0) {
        unlinkat(dir_fd, temp, 0);
        return r;
    }

    if (fsync_retry(dir_fd) < 0)
        return error_set(error, errno, "fsync the directory of %s", name);
    return 0;
}

/* ---- remove ---- */

int file_remove(int dir_fd, const char *name, struct error *error)
{
    int r = check_name(name, error);
    if (r < 0)
        return r;

    if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
        return error_set(error, errno, "remove %s", name);
    /* Even when nothing was there: the fsync of an earlier try may be what failed. */
    if (fsync_retry(dir_fd) < 0)
        return error_set(error, errno, "fsync the directory of %s", name);
    return 0;
}

/* With an fd of its own: the position in the directory belongs to the open file. */
static DIR *open_dir(int dir_fd)
{
    int fd = open_retry(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return NULL;

    DIR *dir = fdopendir(fd);
    if (!dir)
        close_fd(fd);
    return dir;
}

int file_remove_temporaries(int dir_fd, struct error *error)
{
    struct dirent *entry;

    cleanup(closedir_p) DIR *dir = open_dir(dir_fd);
    if (!dir)
        return error_set(error, errno, "open the directory");

    while (errno = 0, (entry = readdir(dir))) {
        if (!is_temporary(entry->d_name))
            continue;
        /* A directory is none of ours. */
        if (unlinkat(dir_fd, entry->d_name, 0) < 0 && errno != ENOENT && errno != EISDIR)
            return error_set(error, errno, "remove %s", entry->d_name);
    }
    if (errno > 0)
        return error_set(error, errno, "read the directory");
    if (fsync_retry(dir_fd) < 0)
        return error_set(error, errno, "fsync the directory");
    return 0;
}

/* ---- read ---- */

struct content {
    char *data;
    size_t len;
    size_t size; /* without the room for the NUL */
};

static int reserve(struct content *content, size_t size)
{
    char *data = realloc(content->data, size + 1);
    if (!data)
        return -ENOMEM;
    content->data = data;
    content->size = size;
    return 0;
}

/* Reads up to the end, or one byte beyond max, which tells that the file is too large. */
static int read_all(int fd, size_t max, struct content *content)
{
    for (;;) {
        if (content->len == content->size) {
            size_t size = content->size * 2 <= max ? content->size * 2 : max + 1;
            int r = reserve(content, size);
            if (r < 0)
                return r;
        }
        ssize_t n = TEMP_FAILURE_RETRY(
            read(fd, content->data + content->len, content->size - content->len));
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        content->len += (size_t)n;
        if (content->len > max)
            return -EFBIG;
    }
}

static int read_file(int dir_fd, const char *name, size_t max, struct content *content)
{
    struct stat st;

    /* O_NONBLOCK: a FIFO would wait for its writer. */
    cleanup(close_p) int fd = open_retry(dir_fd, name, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if ((uint64_t)st.st_size > max)
        return -EFBIG;

    /* One byte more than there should be, so that the end shows without growing. */
    int r = reserve(content, (size_t)st.st_size + 1);
    if (r < 0)
        return r;
    r = read_all(fd, max, content);
    if (r == 0)
        content->data[content->len] = '\0';
    return r;
}

int file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_len,
              struct error *error)
{
    struct content content = { 0 };

    int r = check_name(name, error);
    if (r < 0)
        return r;

    r = read_file(dir_fd, name, max, &content);
    if (r < 0) {
        free(content.data);
        return error_set(error, -r, "read %s", name);
    }
    *ret = content.data;
    *ret_len = content.len;
    return 0;
}
