#include "netpod.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define PATIENCE_MSEC 60000

#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, strerror(errno));        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* ---- a process that makes sockets ---- */

struct wish {
    int family, type;
};

static void send_fd(int control, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } aside = { .header = { .cmsg_len = CMSG_LEN(sizeof fd),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS } };
    struct iovec byte = { .iov_base = (char[]){ 0 }, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &aside, .msg_controllen = sizeof aside
    };

    memcpy(CMSG_DATA(&aside.header), &fd, sizeof fd);
    must(sendmsg(control, &message, 0) == 1);
}

static int receive_fd(int control)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } aside;
    struct iovec byte = { .iov_base = (char[]){ 0 }, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &aside, .msg_controllen = sizeof aside
    };
    int fd = -1;

    must(recvmsg(control, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void raise_loopback(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    cleanup(close_p) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    must(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
}

/* Both sides, without cookies: Documentation/networking/ip-sysctl.rst. */
static void allow_fast_open(void)
{
    cleanup(close_p) int fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY | O_CLOEXEC);

    must(fd >= 0 && write(fd, "519", 3) == 3);
}

static _Noreturn void serve(int control)
{
    struct wish wish;

    must(write(control, "", 1) == 1); /* everything is as it is to be */
    while (read(control, &wish, sizeof wish) == (ssize_t)sizeof wish) {
        int fd = socket(wish.family, wish.type | SOCK_CLOEXEC, 0);
        must(fd >= 0);
        send_fd(control, fd);
        close(fd);
    }
    _exit(0);
}

static void make_namespace(void)
{
    must(unshare(CLONE_NEWNET) == 0);
    raise_loopback();
    allow_fast_open();
}

static void join_namespace(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    cleanup(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
}

/* group_fd -1: in the group of the caller. like 0: in a namespace of its own, -1: in ours, else in
 * that process's. */
static struct netpod_process start(int group_fd, pid_t like)
{
    int ends[2];
    char ready;

    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        must(group_fd < 0 || cgroup_write(group_fd, "cgroup.procs", "0", NULL) == 0);
        if (like == 0)
            make_namespace();
        else if (like > 0)
            join_namespace(like);
        serve(ends[1]);
    }
    close(ends[1]);
    must(read(ends[0], &ready, 1) == 1);
    return (struct netpod_process){ .pid = pid, .control = ends[0] };
}

static void stop(struct netpod_process *process)
{
    close(process->control);
    kill(process->pid, SIGKILL);
    must(waitpid(process->pid, NULL, 0) == process->pid);
}

int netpod_socket(const struct netpod_process *process, int family, int type)
{
    struct wish wish = { .family = family, .type = type };

    must(write(process->control, &wish, sizeof wish) == (ssize_t)sizeof wish);
    return receive_fd(process->control);
}

/* ---- the pod ---- */

/* valgrind may not know openat2(2); then there is a root, but nothing in it can be opened. */
static bool can_open(const struct cgroup_root *root)
{
    cleanup(close_p) int fd = -1;

    return cgroup_open(root, "", &fd, NULL) == 0;
}

static struct cgroup_root *find_root(void)
{
    struct cgroup_root *root = NULL;

    if (cgroup_root_open(&root, "/sys/fs/cgroup", 0, NULL) < 0 &&
        cgroup_root_open(&root, "/sys/fs/cgroup/unified", 0, NULL) < 0)
        return NULL;
    return can_open(root) ? root : cgroup_root_close(root);
}

static int make_group(const struct netpod *netpod, const char *below)
{
    char name[96];
    int fd = -1;

    snprintf(name, sizeof name, "%s%s", netpod->name, below);
    must(cgroup_create(netpod->root, name, &fd, NULL) == 0);
    return fd;
}

/* A group whose last process was reaped can still be busy for a moment; a group of this name would
 * be in nobody's way, and so nobody waits for it to be gone. */
static void remove_group(const struct netpod *netpod, const char *below, int fd)
{
    struct kernfile_events events;
    char name[96];

    snprintf(name, sizeof name, "%s%s", netpod->name, below);
    while (cgroup_read_events(fd, &events, NULL) == 0 && events.populated)
        sched_yield();
    must(cgroup_destroy(netpod->root, name, NULL) == 0);
    close(fd);
}

struct netpod *netpod_open(enum netpod_place place)
{
    static unsigned serial;
    struct cgroup_root *root = geteuid() == 0 ? find_root() : NULL;

    if (!root)
        return NULL;
    struct netpod *netpod = calloc(1, sizeof *netpod);
    must(netpod);
    netpod->root = root;
    snprintf(netpod->name, sizeof netpod->name, "netpod-%d-%u", getpid(), serial++);
    netpod->parent_fd = make_group(netpod, "");
    netpod->group_fd = make_group(netpod, "/pod");
    netpod->empty_fd = make_group(netpod, "/empty");
    must(cgroup_inode(netpod->group_fd, &netpod->id, NULL) == 0);
    netpod->pod = start(netpod->group_fd, place == NETPOD_IN_OURS ? -1 : 0);
    netpod->stranger = start(-1, place == NETPOD_IN_OURS ? -1 : netpod->pod.pid);
    return netpod;
}

struct netpod *netpod_close(struct netpod *netpod)
{
    if (!netpod)
        return NULL;
    stop(&netpod->stranger);
    stop(&netpod->pod);
    remove_group(netpod, "/empty", netpod->empty_fd);
    remove_group(netpod, "/pod", netpod->group_fd);
    remove_group(netpod, "", netpod->parent_fd);
    cgroup_root_close(netpod->root);
    free(netpod);
    return NULL;
}

/* ---- sockets ---- */

struct sockaddr_in6 netpod_address(const char *text, uint16_t port)
{
    struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;

    if (strchr(text, ':')) {
        must(inet_pton(AF_INET6, text, &address.sin6_addr) == 1);
    } else {
        v4->sin_family = AF_INET;
        must(inet_pton(AF_INET, text, &v4->sin_addr) == 1);
    }
    return address;
}

socklen_t netpod_address_size(const struct sockaddr_in6 *address)
{
    return address->sin6_family == AF_INET6 ? sizeof *address : sizeof(struct sockaddr_in);
}

int netpod_bind(const struct netpod_process *process, int type, const char *address)
{
    struct sockaddr_in6 own = netpod_address(address, 0);
    int fd = netpod_socket(process, own.sin6_family, type);

    must(bind(fd, (struct sockaddr *)&own, netpod_address_size(&own)) == 0);
    return fd;
}

int netpod_listen(const struct netpod_process *process, const char *address)
{
    int fd = netpod_bind(process, SOCK_STREAM, address);

    must(listen(fd, 16) == 0);
    return fd;
}

int netpod_connect(const struct netpod_process *process, int type, const char *from, const char *to,
                   uint16_t port)
{
    struct sockaddr_in6 peer = netpod_address(to, port);
    int fd = netpod_bind(process, type, from);

    must(connect(fd, (struct sockaddr *)&peer, netpod_address_size(&peer)) == 0);
    return fd;
}

uint16_t netpod_port(int fd)
{
    struct sockaddr_in6 own;
    socklen_t size = sizeof own;

    must(getsockname(fd, (struct sockaddr *)&own, &size) == 0);
    return ntohs(own.sin6_port); /* at the same place in both families */
}

static void await_input(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

    must(poll(&poll_fd, 1, PATIENCE_MSEC) == 1);
}

int netpod_accept(int listener)
{
    await_input(listener);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    must(fd >= 0);
    return fd;
}

void netpod_take(int fd, size_t n)
{
    char byte;

    while (n-- > 0) {
        await_input(fd);
        must(read(fd, &byte, 1) == 1);
    }
}
