#include "agent/queues.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h> /* BPF_TCP_…: the kernel's states of a connection */
#include <sched.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/cgroup.h"
#include "agent/sockdiag.h"
#include "common/log.h"

#define STATE(name) (1u << BPF_TCP_##name)

/* A pod listens on a handful of sockets. One with more is polled the slow way. */
#define LISTENERS_MAX 16

/* How long a request is taken to be unanswered of which the kernel's clock is too coarse to tell:
 * what may pass between the decision to freeze and the look. The price is a pod that runs on when
 * it is frozen so soon after its last answer. */
#define TIE_MSEC 2000

/* The process could end, and its number be given away, between the two looks at who it is. */
#define OPEN_ATTEMPTS 3

const char *const queues_kind_names[] = {
    [QUEUES_NOTHING] = "nothing",
    [QUEUES_UNANSWERED] = "unanswered",
    [QUEUES_DATAGRAM] = "datagram",
    [QUEUES_CONNECTION] = "connection",
};

struct queues {
    int fd;
    bool own_namespace;

    /* Of the poll. */
    bool polled; /* the listeners are known */
    bool slow;   /* but are too many to be asked for one by one */
    unsigned n_listeners;
    struct inet_diag_req_v2 *listeners; /* LISTENERS_MAX; only for pods that are polled */
};

/* ---- the namespace ---- */

static int open_namespace(const char *path, int *ret_fd, struct stat *ret, struct error *error)
{
    cleanup(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, ret) < 0)
        return error_set(error, errno, "open %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_namespace_of_group(int group_fd, int *ret_fd, struct stat *ret, struct error *error)
{
    for (int attempt = 0; attempt < OPEN_ATTEMPTS; attempt++) {
        cleanup(close_p) int fd = -1;
        char path[64];
        pid_t pid = cgroup_first_pid(group_fd);
        if (pid <= 0)
            break;

        snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
        int r = open_namespace(path, &fd, ret, error);
        if (r < 0 && r != -ENOENT && r != -ESRCH)
            return r;
        if (r == 0 && cgroup_first_pid(group_fd) == pid) {
            *ret_fd = TAKE_FD(fd);
            return 0;
        }
    }
    return error_outcome(error, QUEUES_E_HIDDEN, "the group has no process that is visible here");
}

static void return_to(int namespace_fd)
{
    if (setns(namespace_fd, CLONE_NEWNET) == 0)
        return;
    log_error("cannot return to our own network namespace: %s", strerror(errno));
    abort();
}

static int open_in_namespace(int namespace_fd, int own_fd, int *ret_fd, struct error *error)
{
    if (setns(namespace_fd, CLONE_NEWNET) < 0)
        return error_set(error, errno, "enter the pod's network namespace");
    int r = sockdiag_open(ret_fd, error);
    return_to(own_fd);
    return r;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int open_socket(struct queues *queues, int group_fd, struct error *error)
{
    cleanup(close_p) int theirs_fd = -1;
    cleanup(close_p) int own_fd = -1;
    struct stat theirs, own;

    int r = open_namespace_of_group(group_fd, &theirs_fd, &theirs, error);
    if (r != 0)
        return r;
    r = open_namespace("/proc/thread-self/ns/net", &own_fd, &own, error);
    if (r < 0)
        return r;
    queues->own_namespace = is_same(&theirs, &own);
    if (queues->own_namespace)
        return sockdiag_open(&queues->fd, error);
    return open_in_namespace(theirs_fd, own_fd, &queues->fd, error);
}

int queues_open(struct queues **ret, int group_fd, struct error *error)
{
    struct queues *queues = calloc(1, sizeof *queues);

    if (!queues)
        return error_set(error, ENOMEM, "look at sockets");
    queues->fd = -1;
    int r = open_socket(queues, group_fd, error);
    if (r != 0) {
        queues_close(queues);
        return r;
    }
    *ret = queues;
    return 0;
}

struct queues *queues_close(struct queues *queues)
{
    if (queues) {
        close_fd(queues->fd);
        free(queues->listeners);
    }
    free(queues);
    return NULL;
}

/* ---- a look ---- */

struct look {
    const struct queues *queues;
    const struct queues_question *question;
    struct queues_answer *answer;
    uint8_t listening[(UINT16_MAX + 1) / 8]; /* the pod's ports that TCP listens on, a bit each */
};

static bool is_ours(const struct queues *queues, const struct queues_question *question,
                    const struct sockdiag_socket *socket)
{
    if (!socket->cgroup)
        return !queues->own_namespace;
    for (size_t i = 0; i < question->n_cgroups; i++)
        if (question->cgroups[i] == *socket->cgroup)
            return true;
    return false;
}

/* The other end, IPv4 mapped: a dual-stack socket shows its IPv4 peers that way, and so one
 * comparison serves all. */
static struct in6_addr peer_of(const struct inet_diag_msg *about)
{
    struct in6_addr address = { .s6_addr = { [10] = 0xff, [11] = 0xff } };

    if (about->idiag_family == AF_INET)
        memcpy(&address.s6_addr[12], about->id.idiag_dst, 4);
    else
        memcpy(&address, about->id.idiag_dst, sizeof address);
    return address;
}

static bool contains(const struct trigger_source *network, const struct in6_addr *address)
{
    size_t bytes = network->prefix / 8;
    unsigned rest = network->prefix % 8;

    if (memcmp(&network->address, address, bytes) != 0)
        return false;
    return rest == 0 ||
           ((network->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - rest)) == 0;
}

static bool is_ignored(const struct queues_question *question, const struct inet_diag_msg *about)
{
    struct in6_addr peer = peer_of(about);

    for (size_t i = 0; i < question->n_ignored; i++)
        if (contains(&question->ignored[i], &peer))
            return true;
    return false;
}

static void write_source(const struct inet_diag_msg *about, char ret[static TRIGGER_ADDRESS_SIZE])
{
    struct in6_addr peer = peer_of(about);

    if (IN6_IS_ADDR_V4MAPPED(&peer))
        inet_ntop(AF_INET, &peer.s6_addr[12], ret, TRIGGER_ADDRESS_SIZE);
    else
        inet_ntop(AF_INET6, &peer, ret, TRIGGER_ADDRESS_SIZE);
}

static uint16_t local_port(const struct inet_diag_msg *about)
{
    return ntohs(about->id.idiag_sport);
}

static void set_listening(struct look *look, uint16_t port)
{
    look->listening[port / 8] |= (uint8_t)(1 << port % 8);
}

/* Does this connection come from outside? Those that listen are told first, so that we know. */
static bool is_incoming(const struct look *look, const struct inet_diag_msg *about)
{
    uint16_t port = local_port(about);

    return look->listening[port / 8] & 1 << port % 8;
}

/* The end of a stream takes one byte's place in the queue. A connection that is not established yet
 * can have data all the same (TCP Fast Open, RFC 7413). */
static bool has_data(const struct inet_diag_msg *about)
{
    return about->idiag_rqueue > (about->idiag_state == BPF_TCP_CLOSE_WAIT ? 1 : 0);
}

/* Without an inode is also what a process has closed, but that has left these states (tcp_close). A
 * connection that the client has closed again, and left nothing in, is a probe. */
static bool waits_for_accept(const struct inet_diag_msg *about)
{
    switch (about->idiag_state) {
    case BPF_TCP_ESTABLISHED:
        return true;
    case BPF_TCP_SYN_RECV:
    case BPF_TCP_CLOSE_WAIT:
        return has_data(about);
    default:
        return false;
    }
}

/* The request and an answer came in the same tick (4 ms at 250 Hz). The answer to this request,
 * when it is still under way or was acknowledged later than the request came; else maybe the one
 * before: a client that asks anew as soon as it has its answer brings about nothing but ties, and
 * it waits.
 */
static bool may_be_unanswered(const struct tcp_info *info)
{
    return info->tcpi_last_data_recv < TIE_MSEC && info->tcpi_unacked == 0 &&
           info->tcpi_last_ack_recv == info->tcpi_last_data_recv;
}

/* The times of tcp_info are ages in milliseconds. A connection that never carried an answer needs
 * no comparison. */
static bool is_unanswered(const struct queues_question *question, const struct tcp_info *info)
{
    if (!info || info->tcpi_data_segs_in == 0 ||
        info->tcpi_last_data_recv >= question->unanswered_msec)
        return false;
    if (info->tcpi_data_segs_out == 0 || info->tcpi_last_data_recv < info->tcpi_last_data_sent)
        return true;
    return info->tcpi_last_data_recv == info->tcpi_last_data_sent && may_be_unanswered(info);
}

static enum queues_kind judge_accepted(const struct look *look,
                                       const struct sockdiag_socket *socket)
{
    bool incoming = is_incoming(look, socket->about);

    if (look->question->wake_on == WAKE_ON_CONNECT)
        return QUEUES_NOTHING;
    if (has_data(socket->about) && (incoming || look->question->wake_on == WAKE_ON_DATA))
        return QUEUES_CONNECTION;
    return incoming && is_unanswered(look->question, socket->info) ? QUEUES_UNANSWERED
                                                                   : QUEUES_NOTHING;
}

static enum queues_kind judge_connection(const struct look *look,
                                         const struct sockdiag_socket *socket)
{
    if (socket->about->idiag_inode != 0)
        return judge_accepted(look, socket);
    return is_incoming(look, socket->about) && waits_for_accept(socket->about) ? QUEUES_CONNECTION
                                                                               : QUEUES_NOTHING;
}

static void see_tcp(const struct sockdiag_socket *socket, void *userdata)
{
    struct look *look = userdata;
    const struct inet_diag_msg *about = socket->about;

    if (!is_ours(look->queues, look->question, socket))
        return;
    if (about->idiag_state == BPF_TCP_LISTEN) {
        set_listening(look, local_port(about));
        return;
    }
    enum queues_kind kind = judge_connection(look, socket);
    if (kind <= look->answer->kind || is_ignored(look->question, about))
        return;
    look->answer->kind = kind;
    look->answer->source_port = ntohs(about->id.idiag_dport);
    look->answer->local_port = local_port(about);
    write_source(about, look->answer->source);
}

/* A socket with a peer got in here by WAKE_ON_DATA, and only one with a peer tells a source. */
static void see_udp(const struct sockdiag_socket *socket, void *userdata)
{
    struct look *look = userdata;
    const struct inet_diag_msg *about = socket->about;
    bool has_peer = about->idiag_state == BPF_TCP_ESTABLISHED;

    if (about->idiag_rqueue == 0 || !is_ours(look->queues, look->question, socket) ||
        (has_peer && is_ignored(look->question, about)))
        return;
    *look->answer = (struct queues_answer){ .kind = QUEUES_DATAGRAM,
                                            .source_port = ntohs(about->id.idiag_dport),
                                            .local_port = local_port(about) };
    if (has_peer)
        write_source(about, look->answer->source);
}

static int look_at_tcp(struct look *look, struct error *error)
{
    const struct queues_question *question = look->question;
    bool data = question->wake_on == WAKE_ON_DATA;
    bool info = question->wake_on != WAKE_ON_CONNECT && question->unanswered_msec > 0;
    uint32_t states = STATE(LISTEN) | STATE(SYN_RECV) | STATE(ESTABLISHED) | STATE(CLOSE_WAIT);

    /* The pod still reads from a connection on which it has said all it had to say. */
    if (data)
        states |= STATE(FIN_WAIT1) | STATE(FIN_WAIT2);
    return sockdiag_dump_tcp(look->queues->fd, states, info, see_tcp, look, error);
}

static int look_at_udp(struct look *look, struct error *error)
{
    uint32_t states = STATE(CLOSE);

    if (look->question->wake_on == WAKE_ON_DATA)
        states |= STATE(ESTABLISHED);
    int r = sockdiag_dump_udp(look->queues->fd, AF_INET, states, see_udp, look, error);
    if (r == 0)
        r = sockdiag_dump_udp(look->queues->fd, AF_INET6, states, see_udp, look, error);
    return r;
}

int queues_look(struct queues *queues, const struct queues_question *question,
                struct queues_answer *ret, struct error *error)
{
    struct queues_answer answer = { .kind = QUEUES_NOTHING };
    struct look look = { .queues = queues, .question = question, .answer = &answer };
    struct error cause = ERROR_INIT;
    int r = 0;

    if (question->wake_on != WAKE_ON_NONE)
        r = look_at_tcp(&look, error);
    if (r < 0)
        return r;
    if (question->wake_on != WAKE_ON_NONE && answer.kind < QUEUES_DATAGRAM)
        r = look_at_udp(&look, &cause);
    if (r < 0 && r != -ENOENT) {
        if (error)
            *error = cause;
        return r;
    }
    *ret = answer;
    return 0;
}

/* ---- the poll ---- */

struct poll {
    struct queues *queues;
    const struct queues_question *question;
    uint64_t waiting;
};

static void remember(struct queues *queues, const struct inet_diag_msg *about)
{
    struct inet_diag_req_v2 request = {
        .sdiag_family = about->idiag_family,
        .sdiag_protocol = IPPROTO_TCP,
        .idiag_states = STATE(LISTEN),
        .id = about->id,
    };

    if (queues->n_listeners == LISTENERS_MAX)
        queues->slow = true;
    else
        queues->listeners[queues->n_listeners++] = request;
}

static void see_listener(const struct sockdiag_socket *socket, void *userdata)
{
    struct poll *poll = userdata;

    if (!is_ours(poll->queues, poll->question, socket))
        return;
    poll->waiting += socket->about->idiag_rqueue;
    remember(poll->queues, socket->about);
}

static int poll_all(struct queues *queues, const struct queues_question *question, uint64_t *ret,
                    struct error *error)
{
    struct poll poll = { .queues = queues, .question = question };

    if (!queues->listeners)
        queues->listeners = calloc(LISTENERS_MAX, sizeof *queues->listeners);
    if (!queues->listeners)
        return error_set(error, ENOMEM, "poll the accept queues");
    queues->slow = false;
    queues->n_listeners = 0;
    int r = sockdiag_dump_tcp(queues->fd, STATE(LISTEN), false, see_listener, &poll, error);
    if (r < 0)
        return r;
    queues->polled = true;
    *ret = poll.waiting;
    return 0;
}

/* False when one of them is not there any more, or shares its address with others (SO_REUSEPORT):
 * the kernel picks one of these, and knows by the cookie that it is not the one that we meant. */
static bool poll_known(const struct queues *queues, uint64_t *ret)
{
    uint64_t waiting = 0;

    for (unsigned i = 0; i < queues->n_listeners; i++) {
        struct inet_diag_msg about;
        if (sockdiag_get(queues->fd, &queues->listeners[i], &about) < 0)
            return false;
        waiting += about.idiag_rqueue;
    }
    *ret = waiting;
    return true;
}

int queues_poll(struct queues *queues, const struct queues_question *question, uint64_t *ret,
                struct error *error)
{
    if (question->wake_on == WAKE_ON_NONE) {
        *ret = 0;
        return 0;
    }
    if (queues->polled && !queues->slow && poll_known(queues, ret))
        return 0;
    return poll_all(queues, question, ret, error);
}
