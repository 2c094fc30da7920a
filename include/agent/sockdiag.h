/* What the kernel tells about the sockets of a network namespace: NETLINK_SOCK_DIAG, sock_diag(7).
 *
 * The netlink socket asks about the namespace that its thread was in when it was made, and keeps
 * that namespace alive. Nothing here waits: the kernel has its answer ready when a question was
 * sent, which for a dump of a large table takes it some time.
 *
 * A question the kernel lacks a module for is -ENOENT (tcp_diag, udp_diag; it loads them itself
 * where it may). Sources: net/ipv4/inet_diag.c, include/uapi/linux/inet_diag.h. */
#pragma once

#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct sockdiag_socket {
    const struct inet_diag_msg *about;
    const uint64_t *cgroup;      /* the id (inode) of its group; NULL before kernel 5.8, without
                                  * CONFIG_SOCK_CGROUP_DATA, and for what is no full socket */
    const struct tcp_info *info; /* when it was asked for; what the kernel does not know is 0 */
};

typedef void sockdiag_callback(const struct sockdiag_socket *socket, void *userdata);

int sockdiag_open(int *ret_fd, struct error *error) MUST_CHECK;

/* Calls back for each TCP socket, v4 and v6, in these states (bits 1 << BPF_TCP_…), those that
 * listen first. With `info` each that does not listen is asked for its tcp_info, too. */
int sockdiag_dump_tcp(int fd, uint32_t states, bool info, sockdiag_callback *callback,
                      void *userdata, struct error *error) MUST_CHECK;

/* The same for the UDP sockets of one family: BPF_TCP_CLOSE is one without a peer,
 * BPF_TCP_ESTABLISHED one with. */
int sockdiag_dump_udp(int fd, int family, uint32_t states, sockdiag_callback *callback,
                      void *userdata, struct error *error) MUST_CHECK;

/* Asks for the one socket that `request` names, without a walk over a table. No sentence: not to be
 * there (-ENOENT), or to be another one now (-ESTALE), is no failure for who asks. */
int sockdiag_get(int fd, const struct inet_diag_req_v2 *request,
                 struct inet_diag_msg *ret) MUST_CHECK;
