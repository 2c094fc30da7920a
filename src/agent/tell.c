#include "agent/tell.h"

void tell_event(const struct pod *pod, const char *type, const char *cause, json_t *more)
{
    const char *group = pod->cgroups.record.group;
    json_t *event = json_pack("{ss ss ss* ss*}", "type", type, "pod_uid", pod_uid(pod), "group",
                              *group ? group : NULL, "cause", cause);

    if (event && more)
        json_object_update(event, more);
    json_decref(more);
    if (event)
        events_emit(pod_config(pod)->events, event);
}

void tell_count(const struct pod *pod, enum agent_stat stat, unsigned series)
{
    metrics_add(pod_config(pod)->metrics, stat, series, 1);
}

void tell_duration(const struct pod *pod, enum agent_stat stat, uint64_t usec)
{
    metrics_observe(pod_config(pod)->metrics, stat, 0, (double)usec / USEC_PER_SEC);
}
