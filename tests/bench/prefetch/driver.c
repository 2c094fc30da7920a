/* driver MODE FLOOR_MB POD CONTAINER...: freezes, reclaims and thaws one pod with the agent's own
 * reclaim and prefetch, without the rest of the agent. A line on stdin is a command:
 *
 *   hold     freeze, and leave the memory where it is; prints {}
 *   freeze   freeze, note, reclaim; prints {"reclaimed": bytes, "msec": n} when all is done
 *   thaw     thaw, start the prefetch; prints {"thawed": CLOCK_MONOTONIC in ns}, and later
 *            {"end": "done", "swapped_in": bytes, "file_read": bytes, "msec": n}
 *   stop     stops the prefetch */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "agent/cgroup.h"
#include "agent/prefetch.h"
#include "agent/reclaim.h"
#include "common/loop.h"

#define CONTAINERS_MAX 16
#define RECLAIM_CHUNK  ((uint64_t)16 << 20)

struct driver {
    sd_event *event;
    struct worker_pool *pool;
    struct prefetcher *prefetcher;
    struct reclaim *reclaim;
    struct prefetch_pod pod;
    int fds[CONTAINERS_MAX];
};

_Noreturn static void die(const struct error *error)
{
    fprintf(stderr, "driver: %s\n", error->msg);
    exit(EXIT_FAILURE);
}

static void say_reclaimed(const struct reclaim_result *result, void *userdata)
{
    (void)userdata;
    printf("{\"reclaimed\": %" PRIu64 ", \"msec\": %.1f}\n", result->bytes,
           (double)result->usec / 1e3);
    fflush(stdout);
}

static void start_reclaim(void *userdata)
{
    struct driver *driver = userdata;
    struct reclaim_config config = {
        .pool = driver->pool, .chunk_max = RECLAIM_CHUNK, .done = say_reclaimed, .userdata = driver
    };
    struct error error = ERROR_INIT;

    if (reclaim_start(&driver->reclaim, &config, driver->fds, driver->pod.n_fds, &error) < 0)
        die(&error);
}

static void say_prefetched(const char *uid, const struct prefetch_result *result, void *userdata)
{
    (void)uid;
    (void)userdata;
    printf("{\"end\": \"%s\", \"swapped_in\": %" PRIu64 ", \"file_read\": %" PRIu64
           ", \"msec\": %.1f, \"error\": \"%s\"}\n",
           pagein_end_names[result->end], result->swapped_in, result->file_read,
           (double)result->usec / 1e3, result->error.msg);
    fflush(stdout);
}

static void write_freeze(struct driver *driver, bool freeze)
{
    struct error error = ERROR_INIT;

    for (unsigned i = 0; i < driver->pod.n_fds; i++)
        if (cgroup_write_freeze(driver->fds[i], freeze, &error) < 0)
            die(&error);
}

static bool all_frozen(struct driver *driver)
{
    struct kernfile_events events = { 0 };
    struct error error = ERROR_INIT;

    for (unsigned i = 0; i < driver->pod.n_fds; i++) {
        if (cgroup_read_events(driver->fds[i], &events, &error) < 0)
            die(&error);
        if (!events.frozen)
            return false;
    }
    return true;
}

static void hold(struct driver *driver)
{
    prefetch_stop(driver->prefetcher, driver->pod.uid);
    write_freeze(driver, true);
    while (!all_frozen(driver))
        usleep(100);
}

static void freeze(struct driver *driver)
{
    hold(driver);
    prefetch_note(driver->prefetcher, &driver->pod, start_reclaim, driver);
}

static void hold_and_say(struct driver *driver)
{
    hold(driver);
    puts("{}");
    fflush(stdout);
}

static void thaw(struct driver *driver)
{
    struct error error = ERROR_INIT;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    write_freeze(driver, false);
    if (prefetch_start(driver->prefetcher, &driver->pod, &error) < 0)
        die(&error);
    printf("{\"thawed\": %lld%09ld}\n", (long long)now.tv_sec, now.tv_nsec);
    fflush(stdout);
}

static int on_command(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct driver *driver = userdata;
    char line[64] = "";
    ssize_t n = read(fd, line, sizeof line - 1);

    (void)source;
    (void)events;
    if (n <= 0)
        sd_event_exit(driver->event, 0);
    else if (strncmp(line, "freeze\n", 7) == 0)
        freeze(driver);
    else if (strncmp(line, "hold\n", 5) == 0)
        hold_and_say(driver);
    else if (strncmp(line, "thaw\n", 5) == 0)
        thaw(driver);
    else
        prefetch_stop(driver->prefetcher, driver->pod.uid);
    return 0;
}

static enum prefetch_mode parse_mode(const char *name)
{
    for (unsigned i = 0; prefetch_mode_names[i]; i++)
        if (strcmp(name, prefetch_mode_names[i]) == 0)
            return i;
    fprintf(stderr, "driver: no mode %s\n", name);
    exit(EXIT_FAILURE);
}

static int open_group(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error error = ERROR_INIT;

    if (fd < 0) {
        error_set(&error, errno, "open %s", path);
        die(&error);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct driver driver = { .pod = { .uid = "bench", .fds = driver.fds } };
    struct error error = ERROR_INIT;

    if (argc < 5 || argc - 4 > CONTAINERS_MAX)
        return EXIT_FAILURE;
    driver.pod.pod_fd = open_group(argv[3]);
    for (int i = 4; i < argc; i++)
        driver.fds[driver.pod.n_fds++] = open_group(argv[i]);
    struct prefetcher_config config = { .mode = parse_mode(argv[1]),
                                        .memory_floor = strtoull(argv[2], NULL, 10) << 20,
                                        .done = say_prefetched };
    if (prefetch_probe(&error) != 0 || loop_open(&driver.event, &error) < 0 ||
        worker_pool_open(&driver.pool, driver.event,
                         &(struct worker_config){ .name = "prefetch", .threads = 1, .nice = 10 },
                         &error) < 0)
        die(&error);
    config.event = driver.event;
    config.pool = driver.pool;
    if (prefetcher_open(&driver.prefetcher, &config, &error) < 0)
        die(&error);
    sd_event_add_io(driver.event, NULL, STDIN_FILENO, EPOLLIN, on_command, &driver);
    sd_event_loop(driver.event);
    worker_pool_close(driver.pool);
    prefetcher_close(driver.prefetcher);
    loop_close(driver.event);
    return 0;
}
