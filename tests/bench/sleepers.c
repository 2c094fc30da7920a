/* sleepers: puts a sleeping process into each group that is named on its stdin. They end with it.
 * Answers at the end of its input, and then sleeps, too. */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>

#include "tool.h"

/* Entered before the fork's end is told, so that the driver finds every group populated. */
static void enter(const char *group)
{
    char path[LINE_SIZE];

    snprintf(path, sizeof path, "%.4000s/cgroup.procs", group);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        die(path);
    close(fd);
}

static void start_in(const char *group)
{
    int ready[2];
    char byte;

    if (pipe(ready) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        enter(group);
        close(ready[0]);
        close(ready[1]);
        for (;;)
            pause();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 0)
        die("read");
    close(ready[0]);
}

int main(void)
{
    char line[LINE_SIZE];

    while (next_command(line))
        start_in(line);
    answer(0, 0, 0, 0);
    for (;;)
        pause();
}
