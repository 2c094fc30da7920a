/* stall GROUP: how long does it take to make a group while others are busy? Makes and removes
 * GROUP/stall again and again until its stdin ends; answers with the longest. */
#include <poll.h>
#include <sys/stat.h>

#include "tool.h"

#define PACE_MSEC 1

static int is_over(void)
{
    struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

    return poll(&input, 1, PACE_MSEC) != 0;
}

static uint64_t make_once(const char *path)
{
    uint64_t start = now_nsec();

    if (mkdir(path, 0755) < 0)
        die(path);
    uint64_t end = now_nsec();
    if (rmdir(path) < 0)
        die(path);
    return end - start;
}

int main(int argc, char **argv)
{
    char path[LINE_SIZE];
    uint64_t longest = 0;
    size_t n = 0;

    if (argc != 2)
        die("stall GROUP");
    snprintf(path, sizeof path, "%s/stall", argv[1]);
    for (; !is_over(); n++) {
        uint64_t took = make_once(path);
        longest = took > longest ? took : longest;
    }
    answer(0, longest, 0, n);
    return 0;
}
