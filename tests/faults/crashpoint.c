/* crashpoint: runs a program and lets it die, or lets a system call fail, at a chosen point.
 *
 *   crashpoint SOCKET [--from CALL ORDER] PROGRAM [ARGUMENT...]
 *
 * Whoever connects to the Unix socket SOCKET gives orders, one a line, and reads what happens:
 *
 *   arm kill N         SIGKILL the process right after its N-th system call
 *   arm fail N ERRNO   the N-th of the calls that can fail (see the table) is not carried out and
 *                      returns -ERRNO, a number
 *   disarm
 *   kill               at once
 *
 *   armed              now: every thread waits for something to do, and none of those waits counts
 *   hit CALL on WHAT by THREAD
 *   counted N          the answer to disarm
 *
 * With --from the program begins when somebody has connected, and is armed by its first CALL.
 *
 * Calls are counted over all threads, from the moment of arming. What the program forks runs
 * untouched. Signals are passed on; the exit status is the program's, 128 + N when signal N ended
 * it. The program dies with us.
 *
 * Sources: ptrace(2); a thread that is seized stops at calls only while it is armed, and runs at
 * its own speed otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "which register holds what is known for x86-64 only"
#endif

#define THREADS_MAX  128
#define SYSCALL_STOP (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */

/* ---- calls ---- */

enum call_flags {
    CAN_FAIL = 1 << 0,
    WAITS = 1 << 1,       /* a thread in it has nothing to do */
    PATH_FIRST = 1 << 2,  /* its first argument is a path */
    PATH_SECOND = 1 << 3, /* its second one, relative to a directory's fd in the first */
    FD_FIRST = 1 << 4,
};

struct call {
    const char *name;
    unsigned flags;
};

#define CALL(name, flags) [SYS_##name] = { #name, flags }

/* Those that fail are the ones whose failure the program has to live with: files and directories,
 * watches, timers. Sockets are left out: a caller that is cut off learns nothing about the pod. */
static const struct call calls[] = {
    CALL(open, CAN_FAIL | PATH_FIRST),
    CALL(openat, CAN_FAIL | PATH_SECOND),
    CALL(openat2, CAN_FAIL | PATH_SECOND),
    CALL(close, CAN_FAIL | FD_FIRST),
    CALL(read, CAN_FAIL | FD_FIRST),
    CALL(readv, CAN_FAIL | FD_FIRST),
    CALL(pread64, CAN_FAIL | FD_FIRST),
    CALL(write, CAN_FAIL | FD_FIRST),
    CALL(writev, CAN_FAIL | FD_FIRST),
    CALL(pwrite64, CAN_FAIL | FD_FIRST),
    CALL(fsync, CAN_FAIL | FD_FIRST),
    CALL(fdatasync, CAN_FAIL | FD_FIRST),
    CALL(ftruncate, CAN_FAIL | FD_FIRST),
    CALL(flock, CAN_FAIL | FD_FIRST),
    CALL(fcntl, CAN_FAIL | FD_FIRST),
    CALL(fstat, CAN_FAIL | FD_FIRST),
    CALL(lseek, CAN_FAIL | FD_FIRST),
    CALL(getdents64, CAN_FAIL | FD_FIRST),
    CALL(stat, CAN_FAIL | PATH_FIRST),
    CALL(lstat, CAN_FAIL | PATH_FIRST),
    CALL(access, CAN_FAIL | PATH_FIRST),
    CALL(readlink, CAN_FAIL | PATH_FIRST),
    CALL(rename, CAN_FAIL | PATH_FIRST),
    CALL(unlink, CAN_FAIL | PATH_FIRST),
    CALL(mkdir, CAN_FAIL | PATH_FIRST),
    CALL(rmdir, CAN_FAIL | PATH_FIRST),
    CALL(newfstatat, CAN_FAIL | PATH_SECOND),
    CALL(statx, CAN_FAIL | PATH_SECOND),
    CALL(renameat, CAN_FAIL | PATH_SECOND),
    CALL(renameat2, CAN_FAIL | PATH_SECOND),
    CALL(unlinkat, CAN_FAIL | PATH_SECOND),
    CALL(mkdirat, CAN_FAIL | PATH_SECOND),
    CALL(readlinkat, CAN_FAIL | PATH_SECOND),
    CALL(faccessat, CAN_FAIL | PATH_SECOND),
    CALL(faccessat2, CAN_FAIL | PATH_SECOND),
    CALL(inotify_add_watch, CAN_FAIL | PATH_SECOND),
    CALL(inotify_rm_watch, CAN_FAIL | FD_FIRST),
    CALL(eventfd2, CAN_FAIL),
    CALL(timerfd_create, CAN_FAIL),
    CALL(timerfd_settime, CAN_FAIL | FD_FIRST),
    CALL(epoll_wait, WAITS | FD_FIRST),
    CALL(epoll_pwait, WAITS | FD_FIRST),
    CALL(epoll_pwait2, WAITS | FD_FIRST),
    CALL(futex, WAITS),
    CALL(poll, 0),
    CALL(epoll_ctl, FD_FIRST),
    CALL(accept4, FD_FIRST),
    CALL(recvfrom, FD_FIRST),
    CALL(sendto, FD_FIRST),
    CALL(sendmsg, FD_FIRST),
    CALL(shutdown, FD_FIRST),
    CALL(getsockopt, FD_FIRST),
    CALL(setsockopt, FD_FIRST),
    CALL(clock_gettime, 0),
    CALL(getpid, 0),
    CALL(mmap, 0),
    CALL(munmap, 0),
    CALL(mprotect, 0),
    CALL(brk, 0),
};

static const struct call *find_call(long number)
{
    static struct call other;
    static char name[32];

    if (number >= 0 && (size_t)number < sizeof calls / sizeof *calls && calls[number].name)
        return &calls[number];
    snprintf(name, sizeof name, "call-%ld", number);
    other.name = name;
    return &other;
}

/* ---- what we know ---- */

struct thread {
    pid_t tid;
    bool stops; /* at its next call, or the end of this one */
    bool inside;
    bool counts;  /* the call that it is in was entered while armed */
    bool failing; /* it is the one that is not carried out */
    long number;
};

static struct thread threads[THREADS_MAX];
static unsigned n_threads;
static volatile pid_t process; /* also for the signal handler */

static enum { OFF, AWAITING, SETTLING, ARMED } state;
static const char *awaited; /* the call that arms */
static bool kills;
static int error; /* that the failing call returns */
static unsigned long wanted, counted;
static int commander = -1;

__attribute__((format(printf, 1, 2))) static _Noreturn void die(const char *fmt, ...)
{
    va_list args;

    fputs("crashpoint: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(125);
}

__attribute__((format(printf, 1, 2))) static void tell(const char *fmt, ...)
{
    va_list args;

    if (commander < 0)
        return;
    va_start(args, fmt);
    vdprintf(commander, fmt, args);
    va_end(args);
}

/* ---- threads ---- */

static struct thread *find_thread(pid_t tid)
{
    for (unsigned i = 0; i < n_threads; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    return NULL;
}

static struct thread *add_thread(pid_t tid)
{
    if (n_threads == THREADS_MAX) {
        errno = EMFILE;
        die("more than %d threads", THREADS_MAX);
    }
    threads[n_threads] = (struct thread){ .tid = tid };
    return &threads[n_threads++];
}

static void drop_thread(pid_t tid)
{
    struct thread *thread = find_thread(tid);

    if (thread)
        *thread = threads[--n_threads];
}

/* A thread that was killed meanwhile no longer listens; waitpid(2) will tell. */
static long peek(const struct thread *thread, size_t offset)
{
    errno = 0;
    return ptrace(PTRACE_PEEKUSER, thread->tid, offset, 0);
}

static void poke(const struct thread *thread, size_t offset, long value)
{
    ptrace(PTRACE_POKEUSER, thread->tid, offset, value);
}

#define REGISTER(name) offsetof(struct user, regs.name)

static void resume(struct thread *thread, int signal_number)
{
    thread->stops = state != OFF;
    if (!thread->stops)
        thread->inside = false; /* its end goes by unseen */
    ptrace(thread->stops ? PTRACE_SYSCALL : PTRACE_CONT, thread->tid, 0, (long)signal_number);
}

/* ---- naming the point ---- */

static void read_string(const struct thread *thread, unsigned long address, char *to, size_t size)
{
    struct iovec local = { .iov_base = to, .iov_len = size - 1 };
    struct iovec remote = { .iov_base = (void *)address, .iov_len = size - 1 };
    ssize_t n = process_vm_readv(thread->tid, &local, 1, &remote, 1, 0);

    to[n > 0 ? n : 0] = '\0';
}

static void read_link(const struct thread *thread, long fd, char *to, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)thread->tid, (int)fd);
    ssize_t n = readlink(path, to, size - 1);
    to[n > 0 ? n : 0] = '\0';
}

static void read_thread_name(const struct thread *thread, char *to, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/comm", (int)thread->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, to, size - 1);
    to[n > 0 ? n : 0] = '\0';
    to[strcspn(to, "\n")] = '\0';
    if (fd >= 0)
        close(fd);
}

static void tell_hit(const struct thread *thread)
{
    const struct call *call = find_call(thread->number);
    char name[32], directory[PATH_MAX] = "", path[256] = "";

    read_thread_name(thread, name, sizeof name);
    if (call->flags & PATH_FIRST)
        read_string(thread, (unsigned long)peek(thread, REGISTER(rdi)), path, sizeof path);
    if (call->flags & PATH_SECOND)
        read_string(thread, (unsigned long)peek(thread, REGISTER(rsi)), path, sizeof path);
    if (call->flags & (PATH_SECOND | FD_FIRST))
        read_link(thread, peek(thread, REGISTER(rdi)), directory, sizeof directory);
    tell("hit %s on %s%s%s by %s\n", call->name, directory, *path ? "/" : "", path, name);
}

/* ---- counting ---- */

static bool waits(const struct thread *thread)
{
    return thread->inside && find_call(thread->number)->flags & WAITS;
}

/* Armed as soon as nothing is going on: what is going on belongs to what was asked for before. */
static void settle(void)
{
    if (state != SETTLING)
        return;
    for (unsigned i = 0; i < n_threads; i++)
        if (!waits(&threads[i]))
            return;
    state = ARMED;
    tell("armed\n");
}

static void enter_call(struct thread *thread)
{
    thread->inside = true;
    thread->failing = false;
    thread->number = peek(thread, REGISTER(orig_rax));
    if (state == AWAITING && strcmp(find_call(thread->number)->name, awaited) == 0)
        state = ARMED;
    thread->counts = state == ARMED && (kills || find_call(thread->number)->flags & CAN_FAIL);
    if (!thread->counts || kills || ++counted != wanted)
        return;
    tell_hit(thread);
    thread->failing = true;
    poke(thread, REGISTER(orig_rax), -1); /* no call has this number */
}

static void leave_call(struct thread *thread)
{
    thread->inside = false;
    if (thread->failing) {
        thread->failing = false;
        poke(thread, REGISTER(rax), -error);
    }
    if (state != ARMED || !kills || !thread->counts || ++counted != wanted)
        return;
    tell_hit(thread);
    kill(process, SIGKILL);
}

/* ---- stops ---- */

static void on_event(struct thread *thread, int event, int signal_number)
{
    unsigned long message = 0;

    if (event == PTRACE_EVENT_CLONE) {
        ptrace(PTRACE_GETEVENTMSG, thread->tid, 0, &message);
        if (!find_thread((pid_t)message))
            add_thread((pid_t)message);
    }
    if (event == PTRACE_EVENT_STOP && signal_number != SIGTRAP)
        ptrace(PTRACE_LISTEN, thread->tid, 0, 0); /* stopped by job control */
    else
        resume(thread, 0);
}

static void on_stop(pid_t tid, int status)
{
    struct thread *thread = find_thread(tid);
    int signal_number = WSTOPSIG(status), event = status >> 16;

    if (!thread)
        thread = add_thread(tid); /* born before its parent's stop was seen */
    if (event) {
        on_event(thread, event, signal_number);
    } else if (signal_number == SYSCALL_STOP) {
        thread->inside ? leave_call(thread) : enter_call(thread);
        resume(thread, 0);
    } else {
        resume(thread, signal_number);
    }
}

static _Noreturn void finish(int status)
{
    exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void reap(void)
{
    pid_t tid;
    int status;

    while ((tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
        if (WIFSTOPPED(status))
            on_stop(tid, status);
        else if (tid == process)
            finish(status); /* told when its last thread has gone */
        else
            drop_thread(tid);
        settle();
    }
}

/* ---- orders ---- */

static bool parse_arm(const char *line)
{
    counted = 0;
    kills = sscanf(line, "arm kill %lu", &wanted) == 1;
    return kills || sscanf(line, "arm fail %lu %d", &wanted, &error) == 2;
}

static void arm(void)
{
    state = SETTLING;
    for (unsigned i = 0; i < n_threads; i++)
        if (!threads[i].stops)
            ptrace(PTRACE_INTERRUPT, threads[i].tid, 0, 0);
    settle();
}

static void obey(const char *line)
{
    if (strcmp(line, "disarm") == 0) {
        state = OFF;
        tell("counted %lu\n", counted);
    } else if (strcmp(line, "kill") == 0) {
        kill(process, SIGKILL);
    } else if (parse_arm(line)) {
        arm();
    } else {
        tell("not understood: %s\n", line);
    }
}

static void hang_up(void)
{
    close(commander);
    commander = -1;
    state = OFF;
}

static void take_orders(void)
{
    static char text[256];
    static size_t len;
    ssize_t n = read(commander, text + len, sizeof text - 1 - len);
    char *line = text, *newline;

    if (n <= 0) {
        hang_up();
        len = 0;
        return;
    }
    text[len += (size_t)n] = '\0';
    for (; (newline = strchr(line, '\n')); line = newline + 1) {
        *newline = '\0';
        obey(line);
    }
    len = strlen(line);
    memmove(text, line, len + 1);
}

static int listen_on(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)
        die("listen on %s", path);
    return fd;
}

/* ---- the process ---- */

static void on_child(int number)
{
    (void)number; /* it ends ppoll */
}

static void pass_on(int number)
{
    if (process > 0)
        kill(process, number);
}

/* SIGCHLD is let in by ppoll only, so that none is missed between looking and waiting. */
static void handle_signals(sigset_t *ret_waiting)
{
    static const int passed_on[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, ret_waiting);
    sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = on_child }, NULL);
    for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
        sigaction(passed_on[i],
                  &(struct sigaction){ .sa_handler = pass_on, .sa_flags = SA_RESTART }, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* The program begins when it is seized, not before. */
static void start(char **command, const sigset_t *mask)
{
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    int gate[2];
    char byte;

    if (pipe2(gate, O_CLOEXEC) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        close(gate[1]);
        sigprocmask(SIG_SETMASK, mask, NULL);
        signal(SIGPIPE, SIG_DFL);
        if (read(gate[0], &byte, 1) == 1)
            execvp(command[0], command);
        die("run %s", command[0]);
    }
    process = pid;
    add_thread(pid);
    if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
        die("seize %s", command[0]);
    if (state == AWAITING)
        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    if (write(gate[1], "", 1) != 1)
        die("start %s", command[0]);
    close(gate[0]);
    close(gate[1]);
}

static void run(int listener, const sigset_t *waiting)
{
    for (;;) {
        struct pollfd fd = { .fd = commander < 0 ? listener : commander, .events = POLLIN };
        reap();
        if (ppoll(&fd, 1, NULL, waiting) <= 0)
            continue;
        if (commander < 0)
            commander = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        else
            take_orders();
    }
}

int main(int argc, char **argv)
{
    char **command = argv + 2;
    sigset_t waiting;

    if (argc > 5 && strcmp(argv[2], "--from") == 0 && parse_arm(argv[4])) {
        state = AWAITING;
        awaited = argv[3];
        command += 3;
    }
    if (argc < 3 || **command == '-') {
        fprintf(stderr, "usage: crashpoint SOCKET [--from CALL ORDER] PROGRAM [ARGUMENT...]\n");
        return 125;
    }
    int listener = listen_on(argv[1]);
    if (state == AWAITING)
        commander = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    handle_signals(&waiting);
    start(command, &waiting);
    run(listener, &waiting);
}
