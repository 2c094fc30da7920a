/* What the BPF program and the agent say to each other. Included by both: no libc here. */
#pragma once

#include <linux/types.h>

/* Which packets count; the values of enum wake_on. */
#define TRIGGER_MODE_REQUEST 0
#define TRIGGER_MODE_CONNECT 1
#define TRIGGER_MODE_DATA    2

/* What came. */
#define TRIGGER_CONNECTION 1 /* a SYN for a listening socket */
#define TRIGGER_DATAGRAM   2
#define TRIGGER_DATA       3 /* payload on a connection */

/* Of one attachment: lives as long as the program is attached to that cgroup. */
struct trigger_state {
    __u64 serial; /* 0: not armed yet */
    __u64 fired;  /* one event per arming, then silence */
    __u64 mode;
};

/* Addresses are IPv6; IPv4 ones are mapped (RFC 4291, 2.5.5.2). Ports in host order. */
struct trigger_packet {
    __u64 serial;
    __u64 nsec; /* CLOCK_MONOTONIC, when it came */
    __u8 source[16];
    __u16 source_port;
    __u16 local_port;
    __u32 kind;
};

/* A network whose packets wake nobody. */
struct trigger_network {
    __u32 prefix; /* bits of address that count */
    __u8 address[16];
};

/* A connection that the kubelet opened, as its own packets show it. */
struct trigger_tuple {
    __u8 source[16];
    __u8 target[16];
    __u16 source_port;
    __u16 target_port;
};

#define TRIGGER_NETWORKS_MAX 1024
#define TRIGGER_TUPLES_MAX   16384
#define TRIGGER_RING_SIZE    (64 * 1024)
