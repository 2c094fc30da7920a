#include "agent/selftest.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/kernfile.h"
#include "common/loop.h"

#define FREEZE_WAIT_USEC USEC_PER_SEC
#define LOOK_NSEC        (100 * 1000)
#define GROUP_PREFIX     "freeze-agent-selftest-"

const char *const selftest_verdict_names[] = {
    [SELFTEST_OK] = "ok", [SELFTEST_WARN] = "warning", [SELFTEST_FAIL] = "failure"
};

PRINTF(4, 5)
static void add(struct selftest *selftest, const char *name, enum selftest_verdict verdict,
                const char *fmt, ...)
{
    va_list args;

    if (selftest->n == SELFTEST_CHECKS_MAX)
        return;
    selftest->checks[selftest->n].name = name;
    selftest->checks[selftest->n].verdict = verdict;
    va_start(args, fmt);
    vsnprintf(selftest->checks[selftest->n].detail, ERROR_MSG_SIZE, fmt, args);
    va_end(args);
    selftest->n++;
}

/* ---- the freezer, with a process of our own ---- */

static int wait_frozen(int group_fd, bool wanted, struct error *error)
{
    uint64_t deadline = loop_now_usec() + FREEZE_WAIT_USEC;
    struct kernfile_events events;

    while (loop_now_usec() < deadline) {
        int r = cgroup_read_events(group_fd, &events, error);
        if (r < 0 || events.frozen == wanted)
            return r;
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_NSEC }, NULL);
    }
    return error_set(error, ETIMEDOUT, "wait for \"frozen %d\"", wanted);
}

static int freeze_and_thaw(int group_fd, pid_t child, struct error *error)
{
    char pid[16];

    snprintf(pid, sizeof pid, "%d", (int)child);
    int r = cgroup_write(group_fd, "cgroup.procs", pid, error);
    if (r == 0)
        r = cgroup_write_freeze(group_fd, true, error);
    if (r == 0)
        r = wait_frozen(group_fd, true, error);
    if (r == 0)
        r = cgroup_write_freeze(group_fd, false, error);
    if (r == 0)
        r = wait_frozen(group_fd, false, error);
    return r;
}

/* Outlives the agent by no moment, and holds nothing of its: not the lock of the state directory,
 * which would keep the next agent from starting. */
static _Noreturn void be_frozen(pid_t agent, int gate)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(gate, STDIN_FILENO);
    close_range(STDIN_FILENO + 1, ~0u, 0);
    if (write(STDIN_FILENO, "", 1) == 1)
        while (getppid() == agent)
            pause();
    _exit(EXIT_SUCCESS);
}

/* Returns when the child has let go of everything: once frozen it could not. */
static pid_t start_child(void)
{
    pid_t agent = getpid();
    int gate[2];
    char byte;

    if (pipe2(gate, O_CLOEXEC) < 0)
        return -1;
    pid_t child = fork();
    if (child == 0)
        be_frozen(agent, gate[1]);
    close_fd(gate[1]);
    if (child > 0)
        (void)!TEMP_FAILURE_RETRY(read(gate[0], &byte, 1)); /* nothing comes when it has died */
    close_fd(gate[0]);
    return child;
}

static int try_freezer(int group_fd, struct error *error)
{
    pid_t child = start_child();

    if (child < 0)
        return error_set(error, errno, "start a process");
    int r = freeze_and_thaw(group_fd, child, error);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return r;
}

static void check_reclaim(struct selftest *selftest, int group_fd)
{
    struct error error = ERROR_INIT;

    if (cgroup_reclaim(group_fd, 0, &error) < 0)
        add(selftest, "reclaim", SELFTEST_WARN, "%s: memory stays where it is", error.msg);
    else
        add(selftest, "reclaim", SELFTEST_OK, "memory.reclaim takes requests");
}

/* A dead process's group takes a moment to become empty. */
static void remove_group(const struct cgroup_root *root, const char *name)
{
    for (int i = 0; i < 100 && cgroup_destroy(root, name, NULL) == -EBUSY; i++)
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_NSEC }, NULL);
}

/* What an agent that was killed has left. A group with a process in it stays: it is being used. */
static int remove_leftover(int group_fd, const char *name, void *userdata)
{
    (void)group_fd;
    if (strncmp(name, GROUP_PREFIX, strlen(GROUP_PREFIX)) == 0)
        remove_group(userdata, name);
    return 0;
}

static void remove_leftovers(const struct cgroup_root *root)
{
    cleanup(close_p) int fd = -1;

    if (cgroup_open(root, "", &fd, NULL) < 0 ||
        cgroup_for_each_child(fd, remove_leftover, (void *)root, NULL) < 0)
        return; /* the next start will */
}

static void check_freezer(struct selftest *selftest, const struct cgroup_root *root)
{
    struct error error = ERROR_INIT;
    cleanup(close_p) int fd = -1;
    char name[64];

    remove_leftovers(root);
    snprintf(name, sizeof name, GROUP_PREFIX "%d", (int)getpid());
    int r = cgroup_create(root, name, &fd, &error);
    if (r == 0)
        r = try_freezer(fd, &error);
    if (fd < 0 && (r == -EACCES || r == -EPERM))
        add(selftest, "freezer", SELFTEST_WARN, "not tried: %s", error.msg);
    else if (r < 0)
        add(selftest, "freezer", SELFTEST_FAIL, "%s", error.msg);
    else
        add(selftest, "freezer", SELFTEST_OK, "froze and thawed a process of its own");
    if (r == 0 && cgroup_root_has_memory(root))
        check_reclaim(selftest, fd);
    remove_group(root, name);
}

/* ---- the rest ---- */

static void check_memory(struct selftest *selftest, const struct cgroup_root *root)
{
    if (cgroup_root_has_memory(root))
        add(selftest, "memory", SELFTEST_OK, "the memory controller is in this hierarchy");
    else
        add(selftest, "memory", SELFTEST_WARN,
            "no memory controller in this hierarchy: pods are frozen, their memory stays");
}

static void check_swap(struct selftest *selftest)
{
    struct kernfile_meminfo info;

    if (kernfile_read_meminfo(&info) < 0)
        add(selftest, "swap", SELFTEST_WARN, "/proc/meminfo cannot be read");
    else if (info.swap_total == 0)
        add(selftest, "swap", SELFTEST_WARN, "no swap: memory stays in RAM");
    else
        add(selftest, "swap", SELFTEST_OK, "%.0f MiB, %.0f MiB free",
            (double)info.swap_total / (1 << 20), (double)info.swap_free / (1 << 20));
}

static void check_layout(struct selftest *selftest, const struct layout *layout)
{
    unsigned n = layout_n_roots(layout);

    if (n == 0)
        add(selftest, "pods", SELFTEST_WARN, "no kubepods cgroup yet: is a kubelet running?");
    else
        add(selftest, "pods", SELFTEST_OK, "below %s%s", layout_root_path(layout, 0),
            n > 1 ? " and others" : "");
}

static void check_store(struct selftest *selftest, struct store *store)
{
    struct error error = ERROR_INIT;

    if (store_probe(store, &error) < 0)
        add(selftest, "state", SELFTEST_FAIL,
            "%s: nothing can be frozen, what is frozen can be thawed", error.msg);
    else
        add(selftest, "state", SELFTEST_OK, "records can be written");
}

void selftest_run(struct selftest *ret, const struct selftest_subject *subject)
{
    *ret = (struct selftest){ 0 };
    add(ret, "cgroup", SELFTEST_OK, "v2 at %s", cgroup_root_path(subject->root));
    check_freezer(ret, subject->root);
    check_memory(ret, subject->root);
    check_swap(ret);
    check_layout(ret, subject->layout);
    check_store(ret, subject->store);
}

enum selftest_verdict selftest_worst(const struct selftest *selftest)
{
    enum selftest_verdict worst = SELFTEST_OK;

    for (unsigned i = 0; i < selftest->n; i++)
        if (selftest->checks[i].verdict > worst)
            worst = selftest->checks[i].verdict;
    return worst;
}

json_t *selftest_to_json(const struct selftest *selftest)
{
    json_t *checks = json_array();

    for (unsigned i = 0; i < selftest->n; i++)
        json_array_append_new(checks,
                              json_pack("{ss ss ss}", "name", selftest->checks[i].name, "verdict",
                                        selftest_verdict_names[selftest->checks[i].verdict],
                                        "detail", selftest->checks[i].detail));
    return json_pack("{sb so}", "ready", selftest_worst(selftest) < SELFTEST_FAIL, "checks",
                     checks);
}
