/* The calls of the agent that the fake kernel takes. To be included by the one file of a test whose
 * link line has WRAP := write file_replace file_remove. */
#pragma once

#include "common/file.h"
#include "fake_kernel.h"

ssize_t __wrap_write(int fd, const void *data, size_t len);
int __real_file_replace(int dir_fd, const char *name, const void *data, size_t len,
                        struct error *error);
int __wrap_file_replace(int dir_fd, const char *name, const void *data, size_t len,
                        struct error *error);
int __real_file_remove(int dir_fd, const char *name, struct error *error);
int __wrap_file_remove(int dir_fd, const char *name, struct error *error);

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
    return fake_kernel_write(fd, data, len);
}

int __wrap_file_replace(int dir_fd, const char *name, const void *data, size_t len,
                        struct error *error)
{
    int r = fake_disk_enter(FAKE_DISK_PUT);

    r = r < 0 ? error_set(error, -r, "write %s", name)
              : __real_file_replace(dir_fd, name, data, len, error);
    fake_disk_leave(FAKE_DISK_PUT, name, r);
    return r;
}

int __wrap_file_remove(int dir_fd, const char *name, struct error *error)
{
    int r = fake_disk_enter(FAKE_DISK_REMOVE);

    r = r < 0 ? error_set(error, -r, "remove %s", name) : __real_file_remove(dir_fd, name, error);
    fake_disk_leave(FAKE_DISK_REMOVE, name, r);
    return r;
}
