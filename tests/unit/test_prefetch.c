#include "agent/prefetch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/pages.h"
#include "common/loop.h"

/* Groups are directories of plain files; the process in them is real. There is no swap to read
 * from: what is prefetched is a file that the page cache has dropped. */

#define FILE_SIZE ((size_t)2 << 20)
#define MIB       ((uint64_t)1 << 20)

static char dir[] = "/var/tmp/torpor-prefetch-XXXXXX";
static int dir_fd = -1;
static sd_event *event;
static struct worker_pool *pool;
static struct prefetcher *prefetcher;

static struct told {
    unsigned times;
    struct prefetch_result result;
} told;
static unsigned noted;

/* ---- the bench ---- */

static int remove_directory(void)
{
    static const char *const files[] = { "cgroup.procs", "memory.max", "memory.high",
                                         "memory.current", "data" };

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        unlinkat(dir_fd, files[i], 0);
    dir_fd = close_fd(dir_fd);
    return rmdir(dir);
}

static int setup(void **state)
{
    struct worker_config config = { .name = "test", .threads = 1 };

    (void)state;
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);
    assert_int_equal(loop_open(&event, NULL), 0);
    assert_int_equal(worker_pool_open(&pool, event, &config, NULL), 0);
    told = (struct told){ 0 };
    noted = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pool = worker_pool_close(pool);
    prefetcher = prefetcher_close(prefetcher);
    event = loop_close(event);
    return remove_directory();
}

static void on_done(const char *uid, const struct prefetch_result *result, void *userdata)
{
    assert_string_equal(uid, "pod");
    assert_ptr_equal(userdata, &told);
    told.times++;
    told.result = *result;
}

static void on_noted(void *userdata)
{
    assert_ptr_equal(userdata, &noted);
    noted++;
}

static void open_prefetcher(enum prefetch_mode mode, uint64_t floor)
{
    struct prefetcher_config config = { .event = event,
                                        .pool = pool,
                                        .mode = mode,
                                        .memory_floor = floor,
                                        .done = on_done,
                                        .userdata = &told };

    assert_int_equal(prefetcher_open(&prefetcher, &config, NULL), 0);
}

static void write_file(const char *name, const char *fmt, ...)
{
    char text[64];
    va_list args;

    va_start(args, fmt);
    int len = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, text, (size_t)len), len);
    close(fd);
}

static struct prefetch_pod the_pod(void)
{
    return (struct prefetch_pod){ .uid = "pod", .fds = &dir_fd, .n_fds = 1, .pod_fd = -1 };
}

static void start(void)
{
    struct prefetch_pod pod = the_pod();

    assert_int_equal(prefetch_start(prefetcher, &pod, NULL), 0);
}

static void turn_until(const unsigned *counter)
{
    while (*counter == 0)
        assert_true(sd_event_run(event, 60 * USEC_PER_SEC) > 0);
}

/* Prefetches to the end, and returns why it ended. */
static enum pagein_end prefetch(void)
{
    told.times = 0;
    start();
    turn_until(&told.times);
    assert_int_equal(told.times, 1);
    return told.result.end;
}

static void note(void)
{
    struct prefetch_pod pod = the_pod();

    noted = 0;
    prefetch_note(prefetcher, &pod, on_noted, &noted);
    turn_until(&noted);
    assert_int_equal(noted, 1);
}

/* ---- a process with a file in its memory ---- */

/* `again` is a pipe: a byte makes it touch the file anew. */
static pid_t start_process(int *again)
{
    int pipe_fds[2], ready[2];
    char byte = 0;

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC) | pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = openat(dir_fd, "data", O_RDONLY | O_CLOEXEC);
        const volatile char *data = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
        char sum = 0;
        close(pipe_fds[1]);
        do {
            for (size_t i = 0; i < FILE_SIZE; i += 4096)
                sum = (char)(sum + data[i]);
            byte = sum;
            if (write(ready[1], &byte, 1) != 1)
                _exit(1);
        } while (read(pipe_fds[0], &byte, 1) == 1);
        _exit(0);
    }
    close(pipe_fds[0]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    *again = pipe_fds[1];
    return pid;
}

static void make_data(void)
{
    cleanup(close_p) int fd = openat(dir_fd, "data", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cleanup(free_p) char *data = calloc(1, FILE_SIZE);

    assert_true(fd >= 0 && data);
    memset(data, 'x', FILE_SIZE);
    assert_int_equal(write(fd, data, FILE_SIZE), FILE_SIZE);
    assert_int_equal(fsync(fd), 0);
}

static void end_process(pid_t pid, int again)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(again);
}

static unsigned cached_pages(void)
{
    unsigned char present[FILE_SIZE / 4096];
    cleanup(close_p) int fd = openat(dir_fd, "data", O_RDONLY | O_CLOEXEC);
    char *data = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    unsigned n = 0;

    assert_int_equal(mincore(data, FILE_SIZE, present), 0);
    munmap(data, FILE_SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(present); i++)
        n += present[i] & 1;
    return n;
}

/* As reclaim does: out of the process, then out of the cache. */
static bool drop_data(pid_t pid)
{
    struct process process;
    cleanup(close_p) int fd = openat(dir_fd, "data", O_RDONLY | O_CLOEXEC);
    char path[64], line[512];
    unsigned long start = 0, end = 0;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, dir) && sscanf(line, "%lx-%lx", &start, &end) == 2)
            break;
    if (maps)
        fclose(maps);
    if (process_open(&process, pid, NULL) < 0)
        return false;
    struct iovec range = { (void *)start, end - start };
    ssize_t r = process_madvise(process.pidfd, &range, 1, MADV_PAGEOUT, 0);
    process_close(&process);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return r > 0 && cached_pages() == 0;
}

/* And calls that not every valgrind knows. */
static void need_privileges(void)
{
    struct error error = ERROR_INIT;

    if (prefetch_probe(&error) == 0)
        return;
    print_message("%s\n", error.msg);
    skip();
}

/* ---- tests ---- */

static void test_off_does_nothing(void **state)
{
    struct prefetch_pod pod = the_pod();

    (void)state;
    open_prefetcher(PREFETCH_OFF, 1);
    start();
    assert_int_equal(prefetch_count(prefetcher), 0);
    prefetch_note(prefetcher, &pod, on_noted, &noted);
    assert_int_equal(noted, 1); /* in the call itself: nothing waits */
    prefetch_stop(prefetcher, "pod");
    prefetch_forget(prefetcher, "pod");
    assert_int_equal(told.times, 0);
}

static void test_an_empty_pod_is_done(void **state)
{
    (void)state;
    open_prefetcher(PREFETCH_ALL, 1);
    assert_int_equal(prefetch(), PAGEIN_DONE); /* not even a list of processes */
    write_file("cgroup.procs", "%s", "");
    assert_int_equal(prefetch(), PAGEIN_DONE);
    assert_int_equal(told.result.swapped_in + told.result.file_read, 0);
    assert_int_equal(prefetch_count(prefetcher), 0);
}

static void test_hidden_processes(void **state)
{
    (void)state;
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "0\n");
    assert_int_equal(prefetch(), PAGEIN_HIDDEN);
    note(); /* goes on to the reclaim all the same */
}

static void test_a_process_that_has_exited_is_skipped(void **state)
{
    (void)state;
    need_privileges();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "%d\n", (int)pid);
    assert_int_equal(prefetch(), PAGEIN_DONE);
    assert_int_equal(told.result.swapped_in + told.result.file_read, 0);
}

static void test_a_zombie_is_skipped(void **state)
{
    siginfo_t info;

    (void)state;
    need_privileges();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "%d\n", (int)pid);
    assert_int_equal(prefetch(), PAGEIN_DONE);
    waitpid(pid, NULL, 0);
}

static void test_a_container_that_is_gone_is_skipped(void **state)
{
    int fds[] = { -1, dir_fd };
    struct prefetch_pod pod = { .uid = "pod", .fds = fds, .n_fds = 2, .pod_fd = -1 };

    (void)state;
    open_prefetcher(PREFETCH_ALL, 1);
    assert_int_equal(prefetch_start(prefetcher, &pod, NULL), 0);
    turn_until(&told.times);
    assert_int_equal(told.result.end, PAGEIN_DONE);
}

/* What was mapped before the reclaim is read again after the thaw. */
static void file_comes_back(enum prefetch_mode mode)
{
    int again = -1;

    need_privileges();
    make_data();
    pid_t pid = start_process(&again);
    open_prefetcher(mode, 1);
    write_file("cgroup.procs", "%d\n", (int)pid);
    note();
    if (!drop_data(pid)) { /* the file system has no cache of its own */
        end_process(pid, again);
        skip();
    }
    assert_int_equal(prefetch(), PAGEIN_DONE);
    assert_true(told.result.file_read >= FILE_SIZE);
    for (int i = 0; i < 1000 && cached_pages() < FILE_SIZE / 4096; i++)
        usleep(1000); /* the kernel has been asked, and reads while we look */
    assert_int_equal(cached_pages(), FILE_SIZE / 4096);
    end_process(pid, again);
}

static void test_files_come_back(void **state)
{
    (void)state;
    file_comes_back(PREFETCH_ALL);
}

static void test_the_first_recorded_wake_is_as_all(void **state)
{
    (void)state;
    file_comes_back(PREFETCH_RECORDED);
    assert_int_equal(prefetch_count(prefetcher), 1); /* waits for what the app touches */
}

static void test_a_pod_that_is_gone_is_forgotten(void **state)
{
    int again = -1;

    (void)state;
    need_privileges();
    make_data();
    pid_t pid = start_process(&again);
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "%d\n", (int)pid);
    note();
    prefetch_forget(prefetcher, "pod");
    assert_int_equal(prefetch(), PAGEIN_DONE);
    assert_int_equal(told.result.file_read, 0);
    end_process(pid, again);
}

/* The pod has something to bring in, and may not. */
static enum pagein_end prefetch_within(uint64_t floor, const char *file, uint64_t limit)
{
    int again = -1;

    need_privileges();
    make_data();
    pid_t pid = start_process(&again);
    open_prefetcher(PREFETCH_ALL, floor);
    write_file("cgroup.procs", "%d\n", (int)pid);
    write_file("memory.current", "%llu\n", (unsigned long long)(100 * MIB));
    write_file(file, "%llu\n", (unsigned long long)limit);
    note();
    enum pagein_end end = prefetch();
    end_process(pid, again);
    if (end != PAGEIN_DONE)
        assert_int_equal(told.result.file_read, 0);
    return end;
}

static void test_a_node_without_memory(void **state)
{
    (void)state;
    assert_int_equal(prefetch_within(UINT64_MAX / 2, "memory.max", 1000 * MIB), PAGEIN_MEMORY_LOW);
}

static void test_a_group_near_its_max(void **state)
{
    (void)state;
    assert_int_equal(prefetch_within(1, "memory.max", 110 * MIB), PAGEIN_LIMIT);
}

static void test_a_group_near_its_high(void **state)
{
    (void)state;
    assert_int_equal(prefetch_within(1, "memory.high", 110 * MIB), PAGEIN_LIMIT);
}

static void test_a_group_above_its_max(void **state)
{
    (void)state;
    assert_int_equal(prefetch_within(1, "memory.max", 50 * MIB), PAGEIN_LIMIT);
}

static void test_a_group_with_room(void **state)
{
    (void)state;
    assert_int_equal(prefetch_within(1, "memory.max", 200 * MIB), PAGEIN_DONE);
}

static void test_frozen_again_at_once(void **state)
{
    (void)state;
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "%d\n", (int)getpid());
    start();
    prefetch_stop(prefetcher, "pod");
    prefetch_stop(prefetcher, "pod");
    assert_int_equal(told.times, 1);
    assert_int_equal(told.result.end, PAGEIN_STOPPED);
    assert_int_equal(prefetch_count(prefetcher), 0);
    while (worker_pool_pending(pool)) /* the step that was under way frees everything */
        sd_event_run(event, USEC_PER_SEC);
    assert_int_equal(told.times, 1);
}

static void test_a_note_that_is_overtaken_by_a_thaw(void **state)
{
    struct prefetch_pod pod = the_pod();

    (void)state;
    need_privileges();
    open_prefetcher(PREFETCH_ALL, 1);
    write_file("cgroup.procs", "%d\n", (int)getpid());
    prefetch_note(prefetcher, &pod, on_noted, &noted);
    assert_int_equal(prefetch(), PAGEIN_DONE);
    assert_int_equal(noted, 0); /* no reclaim begins */
}

static void test_closed_in_the_middle(void **state)
{
    (void)state;
    open_prefetcher(PREFETCH_RECORDED, 1);
    write_file("cgroup.procs", "%d\n", (int)getpid());
    start();
    prefetch_stop(prefetcher, "pod");
    start();
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PAGEIN_ENDS_N; i++)
        assert_non_null(pagein_end_names[i]);
    assert_null(pagein_end_names[PAGEIN_ENDS_N]);
    assert_string_equal(prefetch_mode_names[PREFETCH_OFF], "off");
    assert_string_equal(prefetch_mode_names[PREFETCH_ALL], "all");
    assert_string_equal(prefetch_mode_names[PREFETCH_RECORDED], "recorded");
    assert_null(prefetch_mode_names[PREFETCH_RECORDED + 1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_off_does_nothing),
        TEST(test_an_empty_pod_is_done),
        TEST(test_hidden_processes),
        TEST(test_a_process_that_has_exited_is_skipped),
        TEST(test_a_zombie_is_skipped),
        TEST(test_a_container_that_is_gone_is_skipped),
        TEST(test_files_come_back),
        TEST(test_the_first_recorded_wake_is_as_all),
        TEST(test_a_pod_that_is_gone_is_forgotten),
        TEST(test_a_node_without_memory),
        TEST(test_a_group_near_its_max),
        TEST(test_a_group_near_its_high),
        TEST(test_a_group_above_its_max),
        TEST(test_a_group_with_room),
        TEST(test_frozen_again_at_once),
        TEST(test_a_note_that_is_overtaken_by_a_thaw),
        TEST(test_closed_in_the_middle),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
