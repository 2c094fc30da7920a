#include "agent/status.h"

static json_t *string_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

static json_t *msec_or_null(uint64_t usec)
{
    return usec ? json_real((double)usec / USEC_PER_MSEC) : json_null();
}

static uint64_t read_or_zero(int fd, const char *file)
{
    uint64_t value;

    return fd >= 0 && cgroup_read_value(fd, file, &value, NULL) == 0 ? value : 0;
}

/* After a thaw "frozen 1" lasts until the first task has moved; with the request taken back here
 * and above, that is only a matter of time. */
static bool is_frozen(const struct pod_cgroups *cgroups, unsigned i)
{
    int fd = cgroups->containers[i].fd;
    struct kernfile_events events;
    bool requested;

    if (fd < 0 || cgroup_read_events(fd, &events, NULL) < 0 || !events.frozen)
        return false;
    if (cgroups->containers[i].foreign)
        return true;
    if (cgroup_read_freeze(fd, &requested, NULL) == 0 && requested)
        return true;
    return cgroups->pod_fd >= 0 && cgroup_read_freeze(cgroups->pod_fd, &requested, NULL) == 0 &&
           requested;
}

static json_t *container_status(const struct pod_cgroups *cgroups, unsigned i, bool *ret_frozen)
{
    const struct record_container *container = &cgroups->record.containers[i];
    char swap_max[SWAP_MAX_SIZE] = "";
    int fd = cgroups->containers[i].fd;

    *ret_frozen = is_frozen(cgroups, i);
    if (fd >= 0 && cgroup_read_swap_max(fd, swap_max, sizeof swap_max, NULL) < 0)
        *swap_max = '\0';
    return json_pack("{ss ss sb so so}", "id", container->id, "cgroup", container->cgroup, "frozen",
                     *ret_frozen, "swap_max", string_or_null(swap_max), "swap_max_original",
                     string_or_null(container->groups[0].swap_max));
}

static json_t *containers_status(const struct pod_cgroups *cgroups, unsigned *ret_frozen)
{
    json_t *array = json_array();

    *ret_frozen = 0;
    for (unsigned i = 0; i < cgroups->record.n_containers; i++) {
        bool frozen;
        json_array_append_new(array, container_status(cgroups, i, &frozen));
        *ret_frozen += frozen;
    }
    return array;
}

/* In bytes, over all containers; "before" only for a pod that was frozen. */
static json_t *memory_status(const struct pod_cgroups *cgroups, bool with_before)
{
    json_int_t before = 0, current = 0, swap = 0;

    for (unsigned i = 0; i < cgroups->record.n_containers; i++) {
        int fd = cgroups->containers[i].fd;
        before += (json_int_t)cgroups->record.containers[i].memory_before;
        current += (json_int_t)read_or_zero(fd, "memory.current");
        swap += (json_int_t)read_or_zero(fd, "memory.swap.current");
    }
    return json_pack("{so sI sI}", "before", with_before ? json_integer(before) : json_null(),
                     "current", current, "swap", swap);
}

static json_t *frozen_at(const struct pod *pod)
{
    char text[EVENTS_TIME_SIZE];

    if (pod->state == POD_RUNNING)
        return json_null();
    events_format_time(pod->cgroups.record.frozen_at_usec, text);
    return json_string(text);
}

/* Only the record is left of a pod that runs with its limits back: it runs. */
static const char *state_of(const struct pod *pod)
{
    bool runs = pod->state == POD_THAWING && pod->thawed && pod->restored;

    return pod_state_names[runs ? POD_RUNNING : pod->state];
}

static json_t *durations(const struct pod *pod)
{
    return json_pack("{so so}", "freeze", msec_or_null(pod->freeze_usec), "reclaim",
                     msec_or_null(pod->reclaimed.usec));
}

/* What would notice a packet for it. */
static json_t *trigger_of(const struct pod *pod)
{
    enum trigger_means means = waker_means_of(pod);

    return means == TRIGGER_MEANS_NONE ? json_null() : json_string(trigger_means_names[means]);
}

json_t *status_of(const struct pod *pod)
{
    const struct record *record = &pod->cgroups.record;
    unsigned frozen;

    return json_pack(
        "{ss ss so sI so ss so so ss so so so so}", "pod_uid", record->pod_uid, "state",
        state_of(pod), "group", string_or_null(record->group), "generation",
        (json_int_t)record->generation, "frozen_at", frozen_at(pod), "reclaim",
        reclaim_state_names[pod->reclaim_state], "reason", string_or_null(pod->reclaim_reason),
        "limited_by", string_or_null(pod->reclaim_limit), "wake_on", wake_on_names[record->wake_on],
        "trigger", trigger_of(pod), "memory", memory_status(&pod->cgroups, true), "containers",
        containers_status(&pod->cgroups, &frozen), "durations", durations(pod));
}

json_t *status_of_cgroups(const struct pod_cgroups *cgroups)
{
    unsigned frozen, n = cgroups->record.n_containers;
    json_t *containers = containers_status(cgroups, &frozen);
    bool foreign = n > 0 && frozen == n;

    return json_pack("{ss ss so sI so ss so so so so so so s{so so} sb}", "pod_uid",
                     cgroups->record.pod_uid, "state",
                     pod_state_names[foreign ? POD_FROZEN : POD_RUNNING], "group", json_null(),
                     "generation", (json_int_t)0, "frozen_at", json_null(), "reclaim",
                     reclaim_state_names[RECLAIM_NONE], "reason", json_null(), "limited_by",
                     json_null(), "wake_on", json_null(), "trigger", json_null(), "memory",
                     memory_status(cgroups, false), "containers", containers, "durations", "freeze",
                     json_null(), "reclaim", json_null(), "foreign", foreign);
}
