/* A pod as the network sees it: a cgroup with a process that sleeps in a network namespace of its
 * own, and beside it a process of another cgroup in the same namespace. Each makes sockets on
 * demand, so that a test holds sockets that are the pod's, and a stranger's. Real cgroups, real
 * sockets: needs root and a cgroup v2 hierarchy. Whatever fails here ends the program. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/cgroup.h"

struct netpod_process {
    pid_t pid;
    int control;
};

struct netpod {
    struct cgroup_root *root;
    char name[64];
    int parent_fd; /* above the pod's, without a process of its own */
    int group_fd;
    int empty_fd; /* no process there */
    uint64_t id;  /* the pod's group */
    struct netpod_process pod, stranger;
};

enum netpod_place { NETPOD_IN_ITS_OWN, NETPOD_IN_OURS };

/* NULL where this machine, or this user, cannot have one. */
struct netpod *netpod_open(enum netpod_place place);
struct netpod *netpod_close(struct netpod *netpod);

/* A socket made by that process, closed on exec. */
int netpod_socket(const struct netpod_process *process, int family, int type);

/* "127.0.0.1", "::1", "::ffff:127.0.0.1"; port 0 lets the kernel choose. */
struct sockaddr_in6 netpod_address(const char *text, uint16_t port);
socklen_t netpod_address_size(const struct sockaddr_in6 *address);

/* All of these are of the pod or of a peer, at these addresses; the caller closes the fd. */
int netpod_bind(const struct netpod_process *process, int type, const char *address);
int netpod_listen(const struct netpod_process *process, const char *address);
int netpod_connect(const struct netpod_process *process, int type, const char *from, const char *to,
                   uint16_t port);
uint16_t netpod_port(int fd);

/* Waits until there is something to accept, accepts it. */
int netpod_accept(int listener);

/* Waits until `n` bytes are there, and takes them. */
void netpod_take(int fd, size_t n);
