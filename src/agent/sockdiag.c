#include "agent/sockdiag.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* A dump comes in pieces as large as we have room for, and at least 8 KiB (netlink(7)). */
#define ANSWER_SIZE (32u << 10)

int sockdiag_open(int *ret_fd, struct error *error)
{
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd < 0)
        return error_set(error, errno, "open a sock_diag socket");
    *ret_fd = fd;
    return 0;
}

static int ask(int fd, uint16_t type, uint16_t flags, const void *request, size_t size)
{
    struct {
        struct nlmsghdr header;
        union {
            struct inet_diag_req old;
            struct inet_diag_req_v2 new;
        } request;
    } message = { .header = { .nlmsg_len = (uint32_t)NLMSG_LENGTH(size),
                              .nlmsg_type = type,
                              .nlmsg_flags = NLM_F_REQUEST | flags } };

    memcpy(&message.request, request, size);
    return send(fd, &message, message.header.nlmsg_len, 0) < 0 ? -errno : 0;
}

/* ---- one socket ---- */

static int read_reply(const struct nlmsghdr *header, size_t n, struct inet_diag_msg *ret)
{
    const struct nlmsgerr *failure = NLMSG_DATA(header);

    if (!NLMSG_OK(header, n))
        return -EBADMSG;
    if (header->nlmsg_type == NLMSG_ERROR && n >= NLMSG_LENGTH(sizeof *failure))
        return failure->error < 0 ? failure->error : -EBADMSG;
    if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || n < NLMSG_LENGTH(sizeof *ret))
        return -EBADMSG;
    memcpy(ret, NLMSG_DATA(header), sizeof *ret);
    return 0;
}

int sockdiag_get(int fd, const struct inet_diag_req_v2 *request, struct inet_diag_msg *ret)
{
    _Alignas(struct nlmsghdr) char answer[4096];
    int r = ask(fd, SOCK_DIAG_BY_FAMILY, 0, request, sizeof *request);
    if (r < 0)
        return r;

    ssize_t n = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
    return n < 0 ? -errno : read_reply((const struct nlmsghdr *)answer, (size_t)n, ret);
}

/* ---- many ---- */

struct dump {
    sockdiag_callback *callback;
    void *userdata;
    bool done;
};

#define ATTRIBUTE_ALIGN(n) (((n) + NLA_ALIGNTO - 1) & ~(size_t)(NLA_ALIGNTO - 1))

/* Attributes are aligned to 4 bytes and of the kernel's size, older or newer: both are copied. */
struct facts {
    uint64_t cgroup;
    struct tcp_info info;
};

static void take_attribute(const struct nlattr *attribute, struct facts *facts,
                           struct sockdiag_socket *socket)
{
    const void *data = attribute + 1;
    size_t size = attribute->nla_len - sizeof *attribute;

    if (attribute->nla_type == INET_DIAG_CGROUP_ID && size == sizeof facts->cgroup) {
        memcpy(&facts->cgroup, data, size);
        socket->cgroup = &facts->cgroup;
    } else if (attribute->nla_type == INET_DIAG_INFO) {
        memcpy(&facts->info, data, size < sizeof facts->info ? size : sizeof facts->info);
        socket->info = &facts->info;
    }
}

static void tell(const struct dump *dump, const struct nlmsghdr *header)
{
    struct sockdiag_socket socket = { .about = NLMSG_DATA(header) };
    struct facts facts = { 0 };
    const char *at = (const char *)(socket.about + 1);
    const char *end = (const char *)header + header->nlmsg_len;

    while (end - at >= (ptrdiff_t)sizeof(struct nlattr)) {
        const struct nlattr *attribute = (const struct nlattr *)at;
        if (attribute->nla_len < sizeof *attribute || attribute->nla_len > end - at)
            break;
        take_attribute(attribute, &facts, &socket);
        at += ATTRIBUTE_ALIGN(attribute->nla_len);
    }
    dump->callback(&socket, dump->userdata);
}

/* The last message carries how it went: 0, or -ENOENT where the kernel lacks the module. */
static int end_of_dump(const struct nlmsghdr *header)
{
    int r = 0;

    if (header->nlmsg_len >= NLMSG_LENGTH(sizeof r))
        memcpy(&r, NLMSG_DATA(header), sizeof r);
    return r < 0 ? r : 0;
}

static int read_piece(struct dump *dump, const char *piece, size_t n)
{
    const struct nlmsghdr *header = (const struct nlmsghdr *)piece;

    for (; NLMSG_OK(header, n); header = NLMSG_NEXT(header, n)) {
        dump->done = header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR;
        if (dump->done)
            return end_of_dump(header);
        if (header->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
            tell(dump, header);
    }
    return 0;
}

/* To the end, whatever the callback has found already: a dump that is left half done makes the next
 * one fail with EBUSY. */
static int read_dump(int fd, struct dump *dump)
{
    _Alignas(struct nlmsghdr) char piece[ANSWER_SIZE];
    int r = 0;

    while (r == 0 && !dump->done) {
        ssize_t n = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
        r = n < 0 ? -errno : n == 0 ? -EBADMSG : read_piece(dump, piece, (size_t)n);
    }
    return r;
}

/* The question of old, because it is about both families at once: the walk over the table of
 * connections, which has a slot for each 64 KiB of the machine's memory or so, is the dear part. */
int sockdiag_dump_tcp(int fd, uint32_t states, bool info, sockdiag_callback *callback,
                      void *userdata, struct error *error)
{
    struct inet_diag_req request = { .idiag_family = AF_INET,
                                     .idiag_states = states,
                                     .idiag_ext = info ? 1 << (INET_DIAG_INFO - 1) : 0 };
    struct dump dump = { .callback = callback, .userdata = userdata };
    int r = ask(fd, TCPDIAG_GETSOCK, NLM_F_DUMP, &request, sizeof request);

    if (r == 0)
        r = read_dump(fd, &dump);
    return r < 0 ? error_set(error, -r, "list TCP sockets") : 0;
}

int sockdiag_dump_udp(int fd, int family, uint32_t states, sockdiag_callback *callback,
                      void *userdata, struct error *error)
{
    struct inet_diag_req_v2 request = { .sdiag_family = (uint8_t)family,
                                        .sdiag_protocol = IPPROTO_UDP,
                                        .idiag_states = states };
    struct dump dump = { .callback = callback, .userdata = userdata };
    int r = ask(fd, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request, sizeof request);

    if (r == 0)
        r = read_dump(fd, &dump);
    return r < 0 ? error_set(error, -r, "list UDP sockets") : 0;
}
