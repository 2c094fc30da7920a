/* What waits in the sockets of a frozen pod: a connection that nobody accepts, data that nobody
 * reads, a request that was read and not answered.
 *
 * The kernel goes on to take connections and data for a frozen process, and its queues tell of
 * them (sock_diag(7)). They are the truth: nothing about what was seen is kept here, and whoever
 * asks twice is told twice.
 *
 * A pod's sockets are those that were made in its cgroups; what is accepted belongs to the group of
 * the socket that listens. Where the kernel does not tell (before 5.8, or without
 * CONFIG_SOCK_CGROUP_DATA) every socket of the namespace counts, but none when the namespace is our
 * own, which then is the node's.
 *
 * One call at a time; which thread makes it does not matter, except for queues_open. */
#pragma once

#include "agent/trigger.h"

struct queues;

enum queues_outcome {
    QUEUES_E_HIDDEN = 1, /* the group has no process that we can see: another PID namespace, or none
                          * that lives */
};

/* Opens a socket in the network namespace of the first process of this group, or of the groups
 * below it, and keeps that namespace alive until queues_close: close it when the pod is gone.
 * Fast enough for the loop thread (40 us), whose namespace it changes for a moment. Should the way
 * back be barred, the process ends (abort): nothing it did after that would be where it was meant
 * to be.
 *
 * To learn of another user's process which namespace it is in takes CAP_SYS_PTRACE (-EACCES), to
 * enter one that is not ours CAP_SYS_ADMIN (-EPERM). Sources: namespaces(7), setns(2). */
int queues_open(struct queues **ret, int group_fd, struct error *error) MUST_CHECK;
struct queues *queues_close(struct queues *queues);

/* Which sockets are the pod's, and what counts:
 *
 *   WAKE_ON_REQUEST  a connection that waits to be accepted, with data or without (there are
 *                    protocols where the server speaks first); data on one that the pod has
 *                    accepted; a request on such a one that was read, but not answered; a datagram
 *                    for a socket without a peer
 *   WAKE_ON_CONNECT  a connection that waits to be accepted, with data or without; a datagram for a
 *                    socket without a peer
 *   WAKE_ON_DATA     the same as REQUEST, and data on connections that the pod has opened itself
 *   WAKE_ON_NONE     nothing
 *
 * A connection that its peer has closed counts only for the data it has left, and one that was
 * reset not at all. */
struct queues_question {
    const uint64_t *cgroups; /* inodes of the pod's groups, in any order */
    size_t n_cgroups;
    enum wake_on wake_on;
    const struct trigger_source *ignored; /* networks that do not count, such as probes' */
    size_t n_ignored;
    /* A request is unanswered when data came within so many milliseconds and after the last data
     * that were sent; 0: do not look. The kernel's clock ticks in jiffies (1 to 10 ms): when both
     * fall into one tick, the acknowledgement of what was sent decides, and where that came in the
     * same tick, too, a request of the last two seconds is taken to be unanswered. */
    uint64_t unanswered_msec;
};

/* In the order of what is told when there are several. */
enum queues_kind { QUEUES_NOTHING, QUEUES_UNANSWERED, QUEUES_DATAGRAM, QUEUES_CONNECTION };
extern const char *const queues_kind_names[];

struct queues_answer {
    enum queues_kind kind;
    char source[TRIGGER_ADDRESS_SIZE]; /* "" of a datagram: a queue does not tell its senders, and
                                        * so no datagram is from an ignored source */
    uint16_t source_port;
    uint16_t local_port;
};

/* Blocks as long as the kernel walks over its table of connections, 0.5 ms where memory is 24 GiB
 * and in proportion to it up to some 5: call it on a worker. -ENOENT without the kernel module
 * tcp_diag; without udp_diag no datagram is looked at. */
int queues_look(struct queues *queues, const struct queues_question *question,
                struct queues_answer *ret, struct error *error) MUST_CHECK;

/* How many connections wait to be accepted, whoever they are from, closed ones included: what to
 * poll where packets tell us nothing. While a pod is frozen the number only grows, and only a
 * number that has grown is worth a look. Sees neither data on accepted connections nor datagrams.
 *
 * The first call walks over all sockets that listen, and remembers the pod's, which cannot change
 * while it is frozen; later ones ask for each of these, 4 us a socket. Begin anew (queues_open)
 * after a thaw. */
int queues_poll(struct queues *queues, const struct queues_question *question, uint64_t *ret,
                struct error *error) MUST_CHECK;
