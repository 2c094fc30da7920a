#include "agent/trigger.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <uthash.h>

#include "common/log.h"
#include "trigger.skel.h"

static_assert(TRIGGER_MODE_REQUEST == (int)WAKE_ON_REQUEST, "modes");
static_assert(TRIGGER_MODE_CONNECT == (int)WAKE_ON_CONNECT, "modes");
static_assert(TRIGGER_MODE_DATA == (int)WAKE_ON_DATA, "modes");

struct trigger_link {
    UT_hash_handle hh; /* of the trigger, by serial */
    uint64_t serial;
    struct trigger *trigger;
    struct worker_job job; /* detaches */
    int fd;                /* of the attachment: closing it detaches */
    enum wake_on wake_on;
    void *armed_for;
};

struct trigger {
    struct trigger_config config;
    struct trigger_bpf *skeleton;
    struct ring_buffer *ring;
    struct bpf_link *kubelet;
    sd_event_source *source;
    struct trigger_link *links;
    uint64_t serial; /* of the newest link; packets of older ones find none */
};

/* ---- addresses ---- */

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static int bad_source(const char *text, struct error *error)
{
    return error_set(error, EINVAL, "\"%s\" is no address or network", text);
}

int trigger_parse_source(const char *text, struct trigger_source *ret, struct error *error)
{
    char address[TRIGGER_ADDRESS_SIZE];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    struct trigger_source source = { .prefix = 128 };
    unsigned bits = 128, width;
    char end;

    if (len >= sizeof address)
        return bad_source(text, error);
    memcpy(address, text, len);
    address[len] = '\0';
    if (inet_pton(AF_INET, address, source.address.s6_addr + 12) == 1) {
        memcpy(source.address.s6_addr, mapped, sizeof mapped);
        bits = 32;
    } else if (inet_pton(AF_INET6, address, &source.address) != 1) {
        return bad_source(text, error);
    }
    if (slash) {
        if (sscanf(slash + 1, "%3u%c", &width, &end) != 1 || width > bits)
            return bad_source(text, error);
        source.prefix = 128 - bits + width;
    }
    *ret = source;
    return 0;
}

static void format_address(const uint8_t address[16], char ret[static TRIGGER_ADDRESS_SIZE])
{
    bool ipv4 = memcmp(address, mapped, sizeof mapped) == 0;

    inet_ntop(ipv4 ? AF_INET : AF_INET6, ipv4 ? address + 12 : address, ret, TRIGGER_ADDRESS_SIZE);
}

/* ---- packets ---- */

static const char *const kinds[] = {
    [TRIGGER_CONNECTION] = "connection", [TRIGGER_DATAGRAM] = "datagram", [TRIGGER_DATA] = "data"
};

static int on_packet(void *userdata, void *data, size_t size)
{
    struct trigger *trigger = userdata;
    const struct trigger_packet *packet = data;
    struct trigger_link *link;
    struct trigger_event event;

    if (size < sizeof *packet || packet->kind >= ARRAY_SIZE(kinds) || !kinds[packet->kind])
        return 0;
    HASH_FIND(hh, trigger->links, &packet->serial, sizeof packet->serial, link);
    if (!link)
        return 0; /* thawed in between */
    event = (struct trigger_event){ .kind = kinds[packet->kind],
                                    .source_port = packet->source_port,
                                    .local_port = packet->local_port,
                                    .seen_usec = packet->nsec / NSEC_PER_USEC };
    format_address(packet->source, event.source);
    trigger->config.on_packet(&event, link->armed_for);
    return 0;
}

static int on_ring(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct trigger *trigger = userdata;

    (void)source;
    (void)fd;
    (void)revents;
    ring_buffer__consume(trigger->ring);
    return 0;
}

/* ---- arming ---- */

int trigger_prepare(struct trigger *trigger, enum wake_on wake_on, void *armed_for,
                    struct trigger_link **ret, struct error *error)
{
    struct trigger_link *link = calloc(1, sizeof *link);

    if (!link)
        return error_set(error, ENOMEM, "arm the trigger");
    link->trigger = trigger;
    link->fd = -1;
    link->wake_on = wake_on;
    link->armed_for = armed_for;
    link->serial = ++trigger->serial;
    HASH_ADD(hh, trigger->links, serial, sizeof link->serial, link);
    *ret = link;
    return 0;
}

/* The state is made by the attachment, and holds zeroes or that of an earlier one: until our serial
 * is in it no packet is told of as ours. */
static int set_state(const struct trigger_link *link, int group_fd)
{
    struct trigger_state state = { .serial = link->serial, .mode = link->wake_on };
    struct bpf_cgroup_storage_key key = { .attach_type = BPF_CGROUP_INET_INGRESS };
    struct stat st;

    if (fstat(group_fd, &st) < 0)
        return -errno;
    key.cgroup_inode_id = st.st_ino;
    return bpf_map_update_elem(bpf_map__fd(link->trigger->skeleton->maps.states), &key, &state,
                               BPF_EXIST);
}

int trigger_attach(struct trigger_link *link, int group_fd, struct error *error)
{
    int program = bpf_program__fd(link->trigger->skeleton->progs.wake);

    link->fd = bpf_link_create(program, group_fd, BPF_CGROUP_INET_INGRESS, NULL);
    if (link->fd < 0)
        return error_set(error, -link->fd, "attach the trigger to the pod's cgroup");
    int r = set_state(link, group_fd);
    return r < 0 ? error_set(error, -r, "arm the trigger") : 0;
}

static void detach(struct worker_job *job)
{
    struct trigger_link *link = container_of(job, struct trigger_link, job);

    link->fd = close_fd(link->fd);
}

static void detached(struct worker_job *job)
{
    free(container_of(job, struct trigger_link, job));
}

static void detach_at_the_end(struct worker_job *job)
{
    detach(job);
    detached(job);
}

struct trigger_link *trigger_disarm(struct trigger_link *link)
{
    if (link) {
        HASH_DEL(link->trigger->links, link);
        link->job =
            (struct worker_job){ .run = detach, .done = detached, .dropped = detach_at_the_end };
        worker_submit(link->trigger->config.pool, &link->job);
    }
    return NULL;
}

/* ---- the object ---- */

static int ignore_networks(struct trigger *trigger, struct error *error)
{
    const uint8_t one = 1;

    for (unsigned i = 0; i < trigger->config.n_ignored; i++) {
        const struct trigger_source *source = &trigger->config.ignored[i];
        struct trigger_network network = { .prefix = source->prefix };
        memcpy(network.address, &source->address, sizeof network.address);
        int r = bpf_map__update_elem(trigger->skeleton->maps.networks, &network, sizeof network,
                                     &one, sizeof one, BPF_ANY);
        if (r < 0)
            return error_set(error, -r, "ignore packets of a network");
    }
    return 0;
}

static int attach_kubelet(struct trigger *trigger, struct error *error)
{
    if (trigger->config.kubelet_fd < 0)
        return 0;
    trigger->kubelet =
        bpf_program__attach_cgroup(trigger->skeleton->progs.probes, trigger->config.kubelet_fd);
    return trigger->kubelet ? 0
                            : error_set(error, errno, "attach to the kubelet's cgroup for probes");
}

static int open_ring(struct trigger *trigger, struct error *error)
{
    int fd = bpf_map__fd(trigger->skeleton->maps.packets);

    trigger->ring = ring_buffer__new(fd, on_packet, trigger, NULL);
    if (!trigger->ring)
        return error_set(error, errno, "open the ring of packets");
    int r = sd_event_add_io(trigger->config.event, &trigger->source,
                            ring_buffer__epoll_fd(trigger->ring), EPOLLIN, on_ring, trigger);
    if (r < 0)
        return error_set(error, -r, "watch the ring of packets");
    /* A packet for a sleeping app goes before everything else that is ready. */
    sd_event_source_set_priority(trigger->source, SD_EVENT_PRIORITY_IMPORTANT);
    return 0;
}

static int load(struct trigger *trigger, struct error *error)
{
    trigger->skeleton = trigger_bpf__open();
    if (!trigger->skeleton)
        return error_set(error, errno, "open the trigger's programs");
    int r = trigger_bpf__load(trigger->skeleton);
    return r < 0 ? error_set(error, -r, "load the trigger's programs") : 0;
}

/* libbpf's own words go to our log, at the level of details. */
PRINTF(2, 0)
static int on_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
    char text[512];

    if (level == LIBBPF_DEBUG || !log_enabled(LOG_DEBUG))
        return 0;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("%s", text);
    return 0;
}

int trigger_open(struct trigger **ret, const struct trigger_config *config, struct error *error)
{
    struct trigger *trigger = calloc(1, sizeof *trigger);

    if (!trigger)
        return error_set(error, ENOMEM, "open the trigger");
    trigger->config = *config;
    libbpf_set_print(on_libbpf);
    int r = load(trigger, error);
    if (r == 0)
        r = ignore_networks(trigger, error);
    if (r == 0)
        r = open_ring(trigger, error);
    if (r == 0)
        r = attach_kubelet(trigger, error);
    if (r < 0) {
        trigger_close(trigger);
        return r;
    }
    *ret = trigger;
    return 0;
}

struct trigger *trigger_close(struct trigger *trigger)
{
    if (trigger) {
        sd_event_source_disable_unref(trigger->source);
        ring_buffer__free(trigger->ring);
        bpf_link__destroy(trigger->kubelet);
        trigger_bpf__destroy(trigger->skeleton);
    }
    free(trigger);
    return NULL;
}
