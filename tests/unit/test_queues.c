#include "agent/queues.h"

#include <linux/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/sockdiag.h"
#include "common/loop.h"
#include "netpod.h"

#define PATIENCE_USEC (60 * USEC_PER_SEC)
#define LONG_MSEC     3600000 /* nothing here is older */

/* ---- a kernel that lacks something ---- */

static unsigned setns_calls;
static unsigned setns_fails_at; /* the n-th, from 1; 0: none */
static bool without_cgroups;
static int udp_fails_with;

int __real_setns(int fd, int type);
int __wrap_setns(int fd, int type);

int __wrap_setns(int fd, int type)
{
    if (++setns_calls != setns_fails_at)
        return __real_setns(fd, type);
    errno = EPERM;
    return -1;
}

struct listener {
    sockdiag_callback *callback;
    void *userdata;
};

int __real_sockdiag_dump_tcp(int fd, uint32_t states, bool info, sockdiag_callback *callback,
                             void *userdata, struct error *error);
int __wrap_sockdiag_dump_tcp(int fd, uint32_t states, bool info, sockdiag_callback *callback,
                             void *userdata, struct error *error);
int __real_sockdiag_dump_udp(int fd, int family, uint32_t states, sockdiag_callback *callback,
                             void *userdata, struct error *error);
int __wrap_sockdiag_dump_udp(int fd, int family, uint32_t states, sockdiag_callback *callback,
                             void *userdata, struct error *error);

static void tell_without_cgroup(const struct sockdiag_socket *socket, void *userdata)
{
    struct sockdiag_socket poorer = *socket;
    struct listener *listener = userdata;

    if (without_cgroups)
        poorer.cgroup = NULL;
    listener->callback(&poorer, listener->userdata);
}

int __wrap_sockdiag_dump_tcp(int fd, uint32_t states, bool info, sockdiag_callback *callback,
                             void *userdata, struct error *error)
{
    struct listener listener = { callback, userdata };

    return __real_sockdiag_dump_tcp(fd, states, info, tell_without_cgroup, &listener, error);
}

int __wrap_sockdiag_dump_udp(int fd, int family, uint32_t states, sockdiag_callback *callback,
                             void *userdata, struct error *error)
{
    struct listener listener = { callback, userdata };

    if (udp_fails_with)
        return error_set(error, udp_fails_with, "list UDP sockets");
    return __real_sockdiag_dump_udp(fd, family, states, tell_without_cgroup, &listener, error);
}

/* ---- the bench: a pod, and a look at its sockets ---- */

static struct netpod *netpod;
static struct queues *queues;
static struct queues_question question;
static struct queues_answer answer;
static struct trigger_source ignored[2];
static int fds[16]; /* closed after the test */
static unsigned n_fds;

static int keep(int fd)
{
    assert_true(fd >= 0 && n_fds < ARRAY_SIZE(fds));
    fds[n_fds++] = fd;
    return fd;
}

static void close_now(int fd)
{
    for (unsigned i = 0; i < n_fds; i++)
        if (fds[i] == fd)
            fds[i] = -1;
    close(fd);
}

static int forget_faults(void)
{
    setns_calls = setns_fails_at = 0;
    without_cgroups = false;
    udp_fails_with = 0;
    return 0;
}

static int setup(void **state)
{
    (void)state;
    forget_faults();
    netpod = netpod_open(NETPOD_IN_ITS_OWN);
    if (!netpod)
        return -1;
    question = (struct queues_question){
        .cgroups = &netpod->id, .n_cgroups = 1, .wake_on = WAKE_ON_REQUEST, .ignored = ignored
    };
    return queues_open(&queues, netpod->group_fd, NULL);
}

static int teardown(void **state)
{
    (void)state;
    while (n_fds > 0)
        close_fd(fds[--n_fds]);
    queues = queues_close(queues);
    netpod = netpod_close(netpod);
    return forget_faults();
}

static void ignore(const char *network)
{
    assert_int_equal(trigger_parse_source(network, &ignored[question.n_ignored++], NULL), 0);
}

static enum queues_kind look(enum wake_on wake_on)
{
    struct error error = ERROR_INIT;

    question.wake_on = wake_on;
    memset(&answer, 'x', sizeof answer);
    if (queues_look(queues, &question, &answer, &error) != 0)
        fail_msg("%s", error.msg);
    return answer.kind;
}

/* A packet has arrived when its effect is to be seen: sendto() and close() do not promise more. */
static void await(enum wake_on wake_on, enum queues_kind kind)
{
    uint64_t deadline = loop_now_usec() + PATIENCE_USEC;

    while (look(wake_on) != kind) {
        if (loop_now_usec() > deadline)
            fail_msg("%s, not %s", queues_kind_names[answer.kind], queues_kind_names[kind]);
        sched_yield();
    }
}

static uint64_t poll_waiting(void)
{
    struct error error = ERROR_INIT;
    uint64_t waiting = UINT64_MAX;

    if (queues_poll(queues, &question, &waiting, &error) != 0)
        fail_msg("%s", error.msg);
    return waiting;
}

static void await_waiting(uint64_t n)
{
    uint64_t deadline = loop_now_usec() + PATIENCE_USEC;

    while (poll_waiting() < n && loop_now_usec() < deadline)
        sched_yield();
    assert_int_equal(poll_waiting(), n);
}

/* A connection of the stranger's to the pod, accepted when `server` is given. */
static int connect_to(int listener, const char *from, const char *to, int *server)
{
    int client =
        keep(netpod_connect(&netpod->stranger, SOCK_STREAM, from, to, netpod_port(listener)));

    if (server)
        *server = keep(netpod_accept(listener));
    return client;
}

static void send_byte(int fd)
{
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
}

static void reset(int fd)
{
    struct linger now = { .l_onoff = 1 };

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close_now(fd);
}

static void assert_answer(const char *source, int client, int server)
{
    assert_string_equal(answer.source, source);
    assert_int_equal(answer.source_port, client < 0 ? 0 : netpod_port(client));
    assert_int_equal(answer.local_port, netpod_port(server));
}

/* ---- connections that nobody accepts ---- */

static void test_nothing_waits(void **state)
{
    (void)state;
    keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    keep(netpod_bind(&netpod->pod, SOCK_DGRAM, "127.0.0.1"));
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
    assert_string_equal(answer.source, "");
    assert_int_equal(poll_waiting(), 0);
}

/* In a protocol where the server speaks first this is all that a client does. */
static void test_a_connection_waits_without_data(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.2", "127.0.0.1", NULL);

    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.2", client, listener);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_CONNECTION);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_CONNECTION);
    assert_int_equal(look(WAKE_ON_NONE), QUEUES_NOTHING);
}

static void test_whoever_asks_twice_is_told_twice(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));

    connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_CONNECTION);
    keep(netpod_accept(listener));
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

static void test_ipv6(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "::1"));
    int client = connect_to(listener, "::1", "::1", NULL);

    await(WAKE_ON_CONNECT, QUEUES_CONNECTION);
    assert_answer("::1", client, listener);
}

static void test_an_ipv4_peer_of_a_dual_stack_socket(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "::"));
    int server;
    int client = connect_to(listener, "127.0.0.2", "127.0.0.1", NULL);

    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.2", client, listener);

    server = keep(netpod_accept(listener));
    send_byte(client);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.2", client, server);
    ignore("127.0.0.2");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

static void test_a_closed_probe_is_nothing(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);

    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    close_now(client);
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
    assert_int_equal(poll_waiting(), 1);
}

static void test_a_reset_connection_is_nothing(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);

    send_byte(client);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    reset(client);
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
}

static void test_data_count_after_their_sender_has_closed(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int probe = connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);

    close_now(probe);
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);
    send_byte(client);
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.1", client, listener);
}

static void test_data_in_the_first_packet(void **state)
{
    (void)state;
    int listener = keep(netpod_bind(&netpod->pod, SOCK_STREAM, "127.0.0.1"));
    int client = keep(netpod_bind(&netpod->stranger, SOCK_STREAM, "127.0.0.1"));
    int backlog = 16;

    assert_int_equal(setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &backlog, sizeof backlog), 0);
    assert_int_equal(listen(listener, backlog), 0);
    struct sockaddr_in6 to = netpod_address("127.0.0.1", netpod_port(listener));
    assert_int_equal(
        sendto(client, "hello", 5, MSG_FASTOPEN, (struct sockaddr *)&to, netpod_address_size(&to)),
        5);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.1", client, listener);
}

/* ---- accepted connections ---- */

static void test_data_on_an_accepted_connection(void **state)
{
    (void)state;
    int server, listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);

    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
    assert_string_equal(answer.source, "");
    assert_int_equal(answer.source_port, 0);
    assert_int_equal(answer.local_port, 0);
    send_byte(client);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.1", client, server);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_CONNECTION);
    netpod_take(server, 1);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
}

static void test_the_end_of_a_stream_is_no_data(void **state)
{
    (void)state;
    int server, listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);

    send_byte(client);
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    netpod_take(server, 1);
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
}

static void test_a_request_that_was_read_and_not_answered(void **state)
{
    (void)state;
    int server, listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);

    question.unanswered_msec = LONG_MSEC;
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    send_byte(client);
    netpod_take(server, 1);
    await(WAKE_ON_REQUEST, QUEUES_UNANSWERED);
    assert_answer("127.0.0.1", client, server);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_NOTHING);
    send_byte(server);
    netpod_take(client, 1);
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
}

/* In the same tick of the kernel's clock as the answer before it. */
static void test_the_next_request_is_unanswered_again(void **state)
{
    (void)state;
    int server, listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);

    question.unanswered_msec = LONG_MSEC;
    for (unsigned i = 0; i < 20; i++) {
        send_byte(server);
        netpod_take(client, 1);
        send_byte(client);
        netpod_take(server, 1);
        assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_UNANSWERED);
    }
}

static void test_an_old_request_is_not_waited_for(void **state)
{
    (void)state;
    int server, listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);

    send_byte(client);
    netpod_take(server, 1);
    question.unanswered_msec = 1;
    await(WAKE_ON_REQUEST, QUEUES_NOTHING);
    question.unanswered_msec = LONG_MSEC;
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_UNANSWERED);
    question.unanswered_msec = 0;
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

/* The kernel's table has them in any order. */
static void test_a_connection_is_told_before_unanswered_requests(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));

    question.unanswered_msec = LONG_MSEC;
    for (unsigned i = 0; i < 5; i++) {
        int server, client = connect_to(listener, "127.0.0.1", "127.0.0.1", &server);
        send_byte(client);
        netpod_take(server, 1);
    }
    await(WAKE_ON_REQUEST, QUEUES_UNANSWERED);
    int newer = connect_to(listener, "127.0.0.3", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.3", newer, listener);
}

static void test_a_connection_of_the_pods_own(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->stranger, "127.0.0.1"));
    int own = keep(
        netpod_connect(&netpod->pod, SOCK_STREAM, "127.0.0.1", "127.0.0.1", netpod_port(listener)));
    int database = keep(netpod_accept(listener));

    question.unanswered_msec = LONG_MSEC;
    send_byte(database);
    await(WAKE_ON_DATA, QUEUES_CONNECTION);
    assert_answer("127.0.0.1", listener, own);
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_NOTHING);
    netpod_take(own, 1);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
}

/* It has sent all it had to send, and still waits for the answer. */
static void test_a_half_closed_connection_of_the_pods_own(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->stranger, "127.0.0.1"));
    int own = keep(
        netpod_connect(&netpod->pod, SOCK_STREAM, "127.0.0.1", "127.0.0.1", netpod_port(listener)));
    int database = keep(netpod_accept(listener));

    assert_int_equal(shutdown(own, SHUT_WR), 0);
    send_byte(database);
    await(WAKE_ON_DATA, QUEUES_CONNECTION);
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

/* ---- datagrams ---- */

static void send_datagram(int fd, const char *to, uint16_t port)
{
    struct sockaddr_in6 address = netpod_address(to, port);

    assert_int_equal(
        sendto(fd, "x", 1, 0, (struct sockaddr *)&address, netpod_address_size(&address)), 1);
}

static void check_datagram(const char *at, const char *from, const char *to)
{
    int server = keep(netpod_bind(&netpod->pod, SOCK_DGRAM, at));
    int client = keep(netpod_bind(&netpod->stranger, SOCK_DGRAM, from));

    send_datagram(client, to, netpod_port(server));
    await(WAKE_ON_REQUEST, QUEUES_DATAGRAM);
    assert_answer("", -1, server);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_DATAGRAM);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_DATAGRAM);
    assert_int_equal(look(WAKE_ON_NONE), QUEUES_NOTHING);
    netpod_take(server, 1);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
}

static void test_a_datagram(void **state)
{
    (void)state;
    check_datagram("127.0.0.1", "127.0.0.1", "127.0.0.1");
    check_datagram("::1", "::1", "::1");
    check_datagram("::", "127.0.0.1", "127.0.0.1");
}

static void test_a_datagram_from_a_peer_of_the_pods_choice(void **state)
{
    (void)state;
    int peer = keep(netpod_bind(&netpod->stranger, SOCK_DGRAM, "127.0.0.1"));
    int own =
        keep(netpod_connect(&netpod->pod, SOCK_DGRAM, "127.0.0.1", "127.0.0.1", netpod_port(peer)));

    send_datagram(peer, "127.0.0.1", netpod_port(own));
    await(WAKE_ON_DATA, QUEUES_DATAGRAM);
    assert_answer("127.0.0.1", peer, own);
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_CONNECT), QUEUES_NOTHING);
    ignore("127.0.0.0/8");
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
}

static void test_without_udp_diag_the_rest_is_looked_at(void **state)
{
    (void)state;
    int server = keep(netpod_bind(&netpod->pod, SOCK_DGRAM, "127.0.0.1"));
    int client = keep(netpod_bind(&netpod->stranger, SOCK_DGRAM, "127.0.0.1"));
    struct error error = ERROR_INIT;

    send_datagram(client, "127.0.0.1", netpod_port(server));
    await(WAKE_ON_REQUEST, QUEUES_DATAGRAM);
    udp_fails_with = ENOENT;
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    udp_fails_with = EIO;
    assert_int_equal(queues_look(queues, &question, &answer, &error), -EIO);
    assert_string_equal(error.msg, "list UDP sockets: Input/output error");
}

/* ---- whom it is from, and whose it is ---- */

static void test_ignored_sources(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));

    connect_to(listener, "127.0.5.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    ignore("127.0.4.0/23");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
    assert_int_equal(poll_waiting(), 1);

    int other = connect_to(listener, "127.0.6.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.6.1", other, listener);
    ignore("127.0.6.1");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

static void test_an_ignored_source_of_ipv6(void **state)
{
    (void)state;
    int listener = keep(netpod_listen(&netpod->pod, "::1"));

    connect_to(listener, "::1", "::1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    ignore("::2");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_CONNECTION);
    question.n_ignored = 0;
    ignore("::/126");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    question.n_ignored = 0;
    ignore("::/0");
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

static void test_sockets_of_other_groups_are_not_the_pods(void **state)
{
    const uint64_t several[] = { UINT64_MAX, 0, netpod->id };
    (void)state;
    int listener = keep(netpod_listen(&netpod->stranger, "127.0.0.1"));
    int server = keep(netpod_bind(&netpod->stranger, SOCK_DGRAM, "127.0.0.1"));

    connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);
    send_datagram(keep(netpod_bind(&netpod->stranger, SOCK_DGRAM, "127.0.0.1")), "127.0.0.1",
                  netpod_port(server));
    without_cgroups = true;
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_int_equal(poll_waiting(), 1);
    without_cgroups = false;
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);

    question.cgroups = several;
    question.n_cgroups = ARRAY_SIZE(several);
    assert_int_equal(look(WAKE_ON_DATA), QUEUES_NOTHING);
    connect_to(keep(netpod_listen(&netpod->pod, "127.0.0.1")), "127.0.0.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
}

static void test_in_our_own_namespace_only_the_pods_group_counts(void **state)
{
    (void)state;
    teardown(state);
    netpod = netpod_open(NETPOD_IN_OURS);
    assert_int_equal(queues_open(&queues, netpod->group_fd, NULL), 0);
    assert_int_equal(setns_calls, 0);
    question.cgroups = &netpod->id;

    int foreign = keep(netpod_listen(&netpod->stranger, "127.0.0.1"));
    connect_to(foreign, "127.0.0.1", "127.0.0.1", NULL);
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
    assert_int_equal(poll_waiting(), 0);

    int listener = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int client = connect_to(listener, "127.0.0.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    assert_answer("127.0.0.1", client, listener);
    without_cgroups = true;
    assert_int_equal(look(WAKE_ON_REQUEST), QUEUES_NOTHING);
}

/* ---- the poll ---- */

static void test_poll_counts_what_waits(void **state)
{
    (void)state;
    int first = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    int second = keep(netpod_listen(&netpod->pod, "::"));

    keep(netpod_listen(&netpod->stranger, "127.0.0.1"));
    assert_int_equal(poll_waiting(), 0);
    connect_to(first, "127.0.0.1", "127.0.0.1", NULL);
    connect_to(second, "::1", "::1", NULL);
    connect_to(second, "127.0.0.1", "127.0.0.1", NULL);
    await(WAKE_ON_REQUEST, QUEUES_CONNECTION);
    await_waiting(3);
    question.wake_on = WAKE_ON_NONE;
    assert_int_equal(poll_waiting(), 0);
}

static void test_poll_of_sockets_that_share_a_port(void **state)
{
    struct sockaddr_in6 address = netpod_address("127.0.0.1", 0);
    int one = 1, listeners[4];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(listeners); i++) {
        int fd = listeners[i] = keep(netpod_socket(&netpod->pod, AF_INET, SOCK_STREAM));
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, netpod_address_size(&address)), 0);
        assert_int_equal(listen(fd, 16), 0);
        address = netpod_address("127.0.0.1", netpod_port(fd));
    }
    assert_int_equal(poll_waiting(), 0);
    for (unsigned i = 0; i < 8; i++)
        connect_to(listeners[0], "127.0.0.1", "127.0.0.1", NULL);
    await_waiting(8);
}

static void test_poll_of_many_sockets(void **state)
{
    int listeners[40];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(listeners); i++)
        listeners[i] = netpod_listen(&netpod->pod, i % 2 ? "127.0.0.1" : "::1");
    assert_int_equal(poll_waiting(), 0);
    connect_to(listeners[39], "127.0.0.1", "127.0.0.1", NULL);
    await_waiting(1);
    for (unsigned i = 0; i < ARRAY_SIZE(listeners); i++)
        close(listeners[i]);
}

static void test_poll_notices_that_a_socket_is_gone(void **state)
{
    (void)state;
    int first = keep(netpod_listen(&netpod->pod, "127.0.0.1"));

    assert_int_equal(poll_waiting(), 0);
    close_now(first);
    int second = keep(netpod_listen(&netpod->pod, "127.0.0.1"));
    connect_to(second, "127.0.0.1", "127.0.0.1", NULL);
    await_waiting(1);
}

/* ---- the way in and out of the namespace ---- */

static ino_t own_namespace(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
    return st.st_ino;
}

static void test_open_comes_back(void **state)
{
    struct queues *another = NULL;
    ino_t before = own_namespace();

    (void)state;
    assert_int_equal(queues_open(&another, netpod->group_fd, NULL), 0);
    assert_int_equal(own_namespace(), before);
    queues_close(another);
}

static void test_open_finds_a_process_in_a_group_below(void **state)
{
    struct queues *another = NULL;

    (void)state;
    assert_int_equal(queues_open(&another, netpod->parent_fd, NULL), 0);
    queues_close(another);
}

static void test_open_of_a_group_without_a_process(void **state)
{
    struct error error = ERROR_INIT;
    struct queues *another = NULL;

    (void)state;
    assert_int_equal(queues_open(&another, netpod->empty_fd, &error), QUEUES_E_HIDDEN);
    assert_null(another);
    assert_string_equal(error.msg, "the group has no process that is visible here");
}

static void test_open_that_may_not_enter(void **state)
{
    struct error error = ERROR_INIT;
    struct queues *another = NULL;
    ino_t before = own_namespace();

    (void)state;
    setns_fails_at = setns_calls + 1;
    assert_int_equal(queues_open(&another, netpod->group_fd, &error), -EPERM);
    assert_null(another);
    assert_string_equal(error.msg, "enter the pod's network namespace: Operation not permitted");
    assert_int_equal(own_namespace(), before);
}

/* Runs in a child, whose way to end is returned. */
static int in_child(void (*run)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void open_as_nobody(void)
{
    struct queues *another = NULL;

    if (setresuid(65534, 65534, 65534) < 0 ||
        queues_open(&another, netpod->group_fd, NULL) != -EACCES)
        _exit(1);
}

static void test_open_by_nobody(void **state)
{
    (void)state;
    assert_int_equal(in_child(open_as_nobody), 0);
}

static void open_without_return(void)
{
    struct queues *another = NULL;

    setns_fails_at = setns_calls + 2;
    if (queues_open(&another, netpod->group_fd, NULL) == 0)
        _exit(0);
    _exit(1);
}

static void test_open_does_not_go_on_in_the_wrong_namespace(void **state)
{
    (void)state;
    int status = in_child(open_without_return);

    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_close_takes_null(void **state)
{
    (void)state;
    assert_null(queues_close(NULL));
}

#define with_pod(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* REQUIRE_KERNEL turns what cannot be tested into a failure. */
static bool is_possible(void)
{
    struct netpod *one = netpod_open(NETPOD_IN_ITS_OWN);

    netpod_close(one);
    return one || getenv("REQUIRE_KERNEL");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        with_pod(test_nothing_waits),
        with_pod(test_a_connection_waits_without_data),
        with_pod(test_whoever_asks_twice_is_told_twice),
        with_pod(test_ipv6),
        with_pod(test_an_ipv4_peer_of_a_dual_stack_socket),
        with_pod(test_a_closed_probe_is_nothing),
        with_pod(test_a_reset_connection_is_nothing),
        with_pod(test_data_count_after_their_sender_has_closed),
        with_pod(test_data_in_the_first_packet),
        with_pod(test_data_on_an_accepted_connection),
        with_pod(test_the_end_of_a_stream_is_no_data),
        with_pod(test_a_request_that_was_read_and_not_answered),
        with_pod(test_the_next_request_is_unanswered_again),
        with_pod(test_an_old_request_is_not_waited_for),
        with_pod(test_a_connection_is_told_before_unanswered_requests),
        with_pod(test_a_connection_of_the_pods_own),
        with_pod(test_a_half_closed_connection_of_the_pods_own),
        with_pod(test_a_datagram),
        with_pod(test_a_datagram_from_a_peer_of_the_pods_choice),
        with_pod(test_without_udp_diag_the_rest_is_looked_at),
        with_pod(test_ignored_sources),
        with_pod(test_an_ignored_source_of_ipv6),
        with_pod(test_sockets_of_other_groups_are_not_the_pods),
        with_pod(test_in_our_own_namespace_only_the_pods_group_counts),
        with_pod(test_poll_counts_what_waits),
        with_pod(test_poll_of_sockets_that_share_a_port),
        with_pod(test_poll_of_many_sockets),
        with_pod(test_poll_notices_that_a_socket_is_gone),
        with_pod(test_open_comes_back),
        with_pod(test_open_finds_a_process_in_a_group_below),
        with_pod(test_open_of_a_group_without_a_process),
        with_pod(test_open_that_may_not_enter),
        with_pod(test_open_by_nobody),
        with_pod(test_open_does_not_go_on_in_the_wrong_namespace),
        cmocka_unit_test(test_close_takes_null),
    };

    if (!is_possible()) {
        printf("queues: needs root and cgroup v2, skipped\n");
        return 0;
    }
    return cmocka_run_group_tests_name("queues", tests, NULL, NULL);
}
