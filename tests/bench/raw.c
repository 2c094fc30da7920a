/* raw GROUP...: the baseline. Nothing but the system calls that a freeze, a thaw and a reclaim of
 * these containers cannot do without. Commands on stdin: freeze, thaw, reclaim. */
#include <fcntl.h>
#include <sched.h>

#include "tool.h"

#define SWAP_MAX_SIZE 32

struct group {
    const char *path;
    char swap_max[SWAP_MAX_SIZE]; /* the original; "" without the memory controller */
};

static int open_file(const struct group *group, const char *file, int flags)
{
    char path[LINE_SIZE];

    snprintf(path, sizeof path, "%s/%s", group->path, file);
    return open(path, flags | O_CLOEXEC);
}

/* Returns whether the file is there. */
static int read_file(const struct group *group, const char *file, char *text, size_t size)
{
    int fd = open_file(group, file, O_RDONLY);

    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, size - 1);
    if (n < 0)
        die(file);
    text[n] = '\0';
    close(fd);
    return 1;
}

/* EAGAIN is the normal end of a reclaim of everything. */
static void write_file(const struct group *group, const char *file, const char *text)
{
    int fd = open_file(group, file, O_WRONLY);

    if (fd < 0 || (write(fd, text, strlen(text)) < 0 && errno != EAGAIN))
        die(file);
    close(fd);
}

static void await_frozen(const struct group *group)
{
    char text[256] = "";

    /* On a single processor the tasks need ours to become frozen. */
    while (read_file(group, "cgroup.events", text, sizeof text) && !strstr(text, "frozen 1"))
        sched_yield();
}

static void freeze(struct group *groups, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *groups[i].swap_max = '\0';
        if (read_file(&groups[i], "memory.swap.max", groups[i].swap_max, SWAP_MAX_SIZE))
            write_file(&groups[i], "memory.swap.max", "max");
    }
    for (size_t i = 0; i < n; i++)
        write_file(&groups[i], "cgroup.freeze", "1");
    for (size_t i = 0; i < n; i++)
        await_frozen(&groups[i]);
}

static void thaw(struct group *groups, size_t n)
{
    for (size_t i = 0; i < n; i++)
        write_file(&groups[i], "cgroup.freeze", "0");
    for (size_t i = 0; i < n; i++)
        if (*groups[i].swap_max)
            write_file(&groups[i], "memory.swap.max", groups[i].swap_max);
}

/* All of it in one write, each group. */
static void reclaim(struct group *groups, size_t n)
{
    char current[SWAP_MAX_SIZE];

    for (size_t i = 0; i < n; i++)
        if (read_file(&groups[i], "memory.current", current, sizeof current))
            write_file(&groups[i], "memory.reclaim", current);
}

static const struct {
    const char *name;
    void (*run)(struct group *groups, size_t n);
} commands[] = { { "freeze", freeze }, { "thaw", thaw }, { "reclaim", reclaim } };

static void obey(const char *name, struct group *groups, size_t n)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, name))
            continue;
        uint64_t start = now_nsec();
        commands[i].run(groups, n);
        answer(start, now_nsec(), 0, 0);
        return;
    }
    errno = EINVAL;
    die(name);
}

int main(int argc, char **argv)
{
    size_t n = (size_t)argc - 1;
    struct group *groups = calloc(n + 1, sizeof *groups);
    char line[LINE_SIZE];

    if (!groups)
        die("no memory");
    for (size_t i = 0; i < n; i++)
        groups[i].path = argv[i + 1];
    while (next_command(line))
        obey(line, groups, n);
    return 0;
}
