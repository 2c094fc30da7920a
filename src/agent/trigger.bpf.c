/* Notices the first packet for a frozen pod.
 *
 * `wake` is attached to the ingress of a pod's cgroup, only while the pod is frozen: a running pod
 * pays nothing. It runs for every packet that reaches a socket of the pod, also for a SYN to a
 * listening one (net/ipv4/tcp_ipv4.c, tcp_filter), and lets all of them pass. `probes` is attached
 * to the egress of the kubelet's cgroup and notes which connections are its own.
 *
 * Only the stable UAPI is used (struct __sk_buff, bpf_sock): no kernel type information is needed.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "agent/trigger_abi.h"

#define PASS            1
#define EXTENSIONS_MAX  4
#define TCP_FLAG_OFFSET 13
#define FLAG_FIN        0x01
#define FLAG_SYN        0x02
#define FLAG_RST        0x04
#define FLAG_ACK        0x10

struct {
    __uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
    __type(key, struct bpf_cgroup_storage_key);
    __type(value, struct trigger_state);
} states SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, TRIGGER_RING_SIZE);
} packets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, TRIGGER_NETWORKS_MAX);
    __type(key, struct trigger_network);
    __type(value, __u8);
} networks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, TRIGGER_TUPLES_MAX);
    __type(key, struct trigger_tuple);
    __type(value, __u8);
} tuples SEC(".maps");

/* What is read of a packet; the network header is at offset 0. */
struct parsed {
    struct trigger_tuple tuple;
    __u32 payload; /* bytes behind the transport header */
    __u32 seq;     /* TCP, host order */
    __u8 protocol;
    __u8 flags; /* TCP */
    __u8 version;
};

/* ---- headers ---- */

static void map_address(__u8 to[16], __u32 ipv4)
{
    __builtin_memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    __builtin_memcpy(to + 12, &ipv4, 4);
}

/* Returns the offset of the transport header, or 0. Only the first fragment has one. */
static __u32 parse_ipv4(struct __sk_buff *skb, struct parsed *p)
{
    struct iphdr ip;

    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) < 0)
        return 0;
    if (ip.frag_off & bpf_htons(0x1fff))
        return 0;
    map_address(p->tuple.source, ip.saddr);
    map_address(p->tuple.target, ip.daddr);
    p->protocol = ip.protocol;
    p->version = 4;
    return ip.ihl * 4;
}

static int is_extension(__u8 header)
{
    return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS;
}

static __u32 parse_ipv6(struct __sk_buff *skb, struct parsed *p)
{
    struct ipv6hdr ip;
    __u32 offset = sizeof(ip);
    __u8 extension[2];

    if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) < 0)
        return 0;
    __builtin_memcpy(p->tuple.source, &ip.saddr, 16);
    __builtin_memcpy(p->tuple.target, &ip.daddr, 16);
    p->protocol = ip.nexthdr;
    p->version = 6;
    for (int i = 0; i < EXTENSIONS_MAX && is_extension(p->protocol); i++) {
        if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)) < 0)
            return 0;
        p->protocol = extension[0];
        offset += (extension[1] + 1) * 8;
    }
    return offset;
}

static int parse_tcp(struct __sk_buff *skb, __u32 offset, struct parsed *p)
{
    struct tcphdr tcp;

    if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)) < 0 ||
        bpf_skb_load_bytes(skb, offset + TCP_FLAG_OFFSET, &p->flags, 1) < 0)
        return 0;
    p->tuple.source_port = bpf_ntohs(tcp.source);
    p->tuple.target_port = bpf_ntohs(tcp.dest);
    p->seq = bpf_ntohl(tcp.seq);
    offset += tcp.doff * 4;
    p->payload = skb->len > offset ? skb->len - offset : 0;
    return 1;
}

static int parse_udp(struct __sk_buff *skb, __u32 offset, struct parsed *p)
{
    struct udphdr udp;

    if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)) < 0)
        return 0;
    p->tuple.source_port = bpf_ntohs(udp.source);
    p->tuple.target_port = bpf_ntohs(udp.dest);
    return 1;
}

static int parse(struct __sk_buff *skb, struct parsed *p)
{
    __u32 offset = 0;

    if (skb->protocol == bpf_htons(ETH_P_IP))
        offset = parse_ipv4(skb, p);
    else if (skb->protocol == bpf_htons(ETH_P_IPV6))
        offset = parse_ipv6(skb, p);
    if (!offset)
        return 0;
    if (p->protocol == IPPROTO_TCP)
        return parse_tcp(skb, offset, p);
    return p->protocol == IPPROTO_UDP && parse_udp(skb, offset, p);
}

/* ---- what counts ---- */

/* Is there a listener on the port where this came in? Then the pod accepted the connection. A
 * lookup with a remote port that cannot be finds no connection, only listeners. */
static int is_accepted(struct __sk_buff *skb, const struct parsed *p)
{
    struct bpf_sock_tuple tuple = {};
    struct bpf_sock *listener;
    __u32 size = p->version == 4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6);

    if (p->version == 4) {
        __builtin_memcpy(&tuple.ipv4.saddr, p->tuple.source + 12, 4);
        __builtin_memcpy(&tuple.ipv4.daddr, p->tuple.target + 12, 4);
        tuple.ipv4.dport = bpf_htons(p->tuple.target_port);
    } else {
        __builtin_memcpy(tuple.ipv6.saddr, p->tuple.source, 16);
        __builtin_memcpy(tuple.ipv6.daddr, p->tuple.target, 16);
        tuple.ipv6.dport = bpf_htons(p->tuple.target_port);
    }
    listener = size == sizeof(tuple.ipv4)
                   ? bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0)
                   : bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
    if (!listener)
        return 0;
    bpf_sk_release(listener);
    return 1;
}

/* Keepalive probes repeat the byte before the next one, and a retransmission what was received:
 * only what goes beyond is new. */
static int is_new_data(struct bpf_sock *sk, const struct parsed *p)
{
    struct bpf_tcp_sock *tcp;

    if (sk->state == BPF_TCP_LISTEN)
        return 1; /* data with the last step of the handshake */
    tcp = bpf_tcp_sock(sk);
    return !tcp || (__s32)(p->seq + p->payload - tcp->rcv_nxt) > 0;
}

static __u32 classify_tcp(struct __sk_buff *skb, struct bpf_sock *sk, const struct parsed *p,
                          __u64 mode)
{
    if (p->flags & FLAG_RST)
        return 0;
    if (p->flags & FLAG_SYN)
        return !(p->flags & FLAG_ACK) && mode != TRIGGER_MODE_DATA ? TRIGGER_CONNECTION : 0;
    if (p->payload == 0 || mode == TRIGGER_MODE_CONNECT || !is_new_data(sk, p))
        return 0;
    return mode == TRIGGER_MODE_DATA || is_accepted(skb, p) ? TRIGGER_DATA : 0;
}

/* A connected UDP socket belongs to a conversation that the pod began (a resolver's query). */
static __u32 classify_udp(struct bpf_sock *sk, __u64 mode)
{
    return mode == TRIGGER_MODE_DATA || sk->dst_port == 0 ? TRIGGER_DATAGRAM : 0;
}

static int is_ignored(const struct parsed *p)
{
    struct trigger_network source = { .prefix = 128 };

    __builtin_memcpy(source.address, p->tuple.source, 16);
    return bpf_map_lookup_elem(&networks, &source) || bpf_map_lookup_elem(&tuples, &p->tuple);
}

static void tell(struct trigger_state *state, const struct parsed *p, __u32 kind)
{
    struct trigger_packet *packet = bpf_ringbuf_reserve(&packets, sizeof(*packet), 0);

    if (!packet) {
        /* The ring is full of other pods' wakes: the client repeats its packet. */
        state->fired = 0;
        return;
    }
    packet->serial = state->serial;
    packet->nsec = bpf_ktime_get_ns();
    __builtin_memcpy(packet->source, p->tuple.source, 16);
    packet->source_port = p->tuple.source_port;
    packet->local_port = p->tuple.target_port;
    packet->kind = kind;
    bpf_ringbuf_submit(packet, 0);
}

SEC("cgroup_skb/ingress")
int wake(struct __sk_buff *skb)
{
    struct trigger_state *state = bpf_get_local_storage(&states, 0);
    struct bpf_sock *sk = skb->sk;
    struct parsed p = {};
    __u32 kind;

    if (!state->serial || state->fired || !sk || !parse(skb, &p))
        return PASS;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return PASS;
    kind = p.protocol == IPPROTO_TCP ? classify_tcp(skb, sk, &p, state->mode)
                                     : classify_udp(sk, state->mode);
    if (kind && !is_ignored(&p) && !__sync_lock_test_and_set(&state->fired, (__u64)1))
        tell(state, &p, kind);
    return PASS;
}

SEC("cgroup_skb/egress")
int probes(struct __sk_buff *skb)
{
    struct parsed p = {};
    __u8 one = 1;

    if (parse(skb, &p) && p.protocol == IPPROTO_TCP && (p.flags & FLAG_SYN) &&
        !(p.flags & FLAG_ACK))
        bpf_map_update_elem(&tuples, &p.tuple, &one, BPF_ANY);
    return PASS;
}

/* Nothing here is reserved for programs under the kernel's own licence. */
char _license[] SEC("license") = "Apache-2.0";
