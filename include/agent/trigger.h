/* Tells of the first packet for a frozen pod, in the kernel and without a proxy.
 *
 * The kernel completes handshakes for a frozen process and keeps what is sent; all that is missing
 * is somebody who notices. That is a BPF program on the ingress of the pod's cgroup, attached only
 * while the pod is frozen. Armed before the freeze, so that no packet falls between; one event per
 * arming, then silence.
 *
 * Which packets count is said by wake_on (agent/record.h):
 *   request   a SYN for a listener, a datagram for a socket that is not connected, new payload on a
 *             connection that the pod accepted (one whose local port has a listener)
 *   connect   only the first two
 *   data      new payload on any connection, any datagram
 *   none      nothing: not armed
 * Never: bare ACKs, keepalive probes, retransmissions of what was received, RST, FIN, ICMP; packets
 * from ignored networks; connections that the kubelet itself opened, where its cgroup is known.
 *
 * Sources: net/ipv4/tcp_ipv4.c (tcp_filter), kernel/bpf/cgroup.c, bpf-helpers(7),
 * Documentation/bpf/map_cgroup_storage.rst. Loop thread only,
 * but for trigger_attach. */
#pragma once

#include <stdbool.h>

#include <netinet/in.h>
#include <systemd/sd-event.h>

#include "agent/record.h"
#include "agent/trigger_abi.h"
#include "common/worker.h"

struct trigger;
struct trigger_link;

/* A network, as IPv6 (IPv4 ones mapped). */
struct trigger_source {
    struct in6_addr address;
    unsigned prefix; /* 0..128 */
};

#define TRIGGER_ADDRESS_SIZE INET6_ADDRSTRLEN

/* What woke a pod. */
struct trigger_event {
    const char *kind;                  /* "connection", "datagram", "data" */
    char source[TRIGGER_ADDRESS_SIZE]; /* as a person writes it; IPv4 without the mapping */
    unsigned source_port;
    unsigned local_port;
    uint64_t seen_usec; /* CLOCK_MONOTONIC */
};

struct trigger_config {
    sd_event *event;
    struct worker_pool *pool; /* for what blocks */
    const struct trigger_source *ignored;
    unsigned n_ignored;
    int kubelet_fd; /* of the kubelet's cgroup, or -1; not taken */
    void (*on_packet)(const struct trigger_event *event, void *armed_for);
};

/* Loads the programs. -EPERM, -ENOSYS, -EINVAL…: this kernel or this process cannot; the sentence
 * says which step failed. */
int trigger_open(struct trigger **ret, const struct trigger_config *config,
                 struct error *error) MUST_CHECK;
struct trigger *trigger_close(struct trigger *trigger);

/* A pod's link to the trigger: on_packet gets `armed_for`, at most once, from attach until disarm.
 */
int trigger_prepare(struct trigger *trigger, enum wake_on wake_on, void *armed_for,
                    struct trigger_link **ret, struct error *error) MUST_CHECK;

/* Attaches to the group and everything below it. Blocks for some milliseconds when it is the first
 * on this kernel (its code is patched): the one function here that is for a worker, too. */
int trigger_attach(struct trigger_link *link, int group_fd, struct error *error) MUST_CHECK;

/* No event from here on; the program is detached on a worker. NULL-safe, returns NULL. */
struct trigger_link *trigger_disarm(struct trigger_link *link);

/* "192.0.2.1", "192.0.2.0/24", "2001:db8::/32". */
int trigger_parse_source(const char *text, struct trigger_source *ret,
                         struct error *error) MUST_CHECK;
