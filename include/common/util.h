/* Small tools that every file uses: scope cleanup, a visible hand-over of ownership, the way from
 * an embedded member to its owner. Nothing here allocates, logs or fails. */
#pragma once

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))
#define MUST_CHECK                    __attribute__((warn_unused_result))

/* cleanup(close_p) int fd = -1;   runs close_p(&fd) at the end of the scope. */
#define cleanup(function) __attribute__((cleanup(function)))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Hands a pointer over and forgets it: *ret = TAKE_PTR(object). */
#define TAKE_PTR(ptr)                                                                              \
    ({                                                                                             \
        __typeof__(ptr) *taken_from = &(ptr);                                                      \
        __typeof__(ptr) taken = *taken_from;                                                       \
        *taken_from = NULL;                                                                        \
        taken;                                                                                     \
    })

/* Hands a file descriptor over and forgets it. */
#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int *taken_from = &(fd);                                                                   \
        int taken = *taken_from;                                                                   \
        *taken_from = -1;                                                                          \
        taken;                                                                                     \
    })

#define USEC_PER_MSEC ((uint64_t)1000)
#define USEC_PER_SEC  ((uint64_t)1000000)
#define NSEC_PER_USEC ((uint64_t)1000)

/* Closes an fd, keeps errno, and returns -1 so that `fd = close_fd(fd)` reads well. */
static inline int close_fd(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return -1;
}

static inline void close_p(int *fd)
{
    *fd = close_fd(*fd);
}

static inline void free_p(void *p)
{
    free(*(void **)p);
}

static inline void closedir_p(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
