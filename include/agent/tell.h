/* What others are told of a pod: events and metrics. Private to what moves pods. */
#pragma once

#include "agent/freezer.h"

static inline const struct freezer_config *pod_config(const struct pod *pod)
{
    return freezer_config(pod->freezer);
}

static inline const char *pod_uid(const struct pod *pod)
{
    return pod->cgroups.record.pod_uid;
}

/* As the API has durations. */
static inline double tell_msec(uint64_t usec)
{
    return (double)usec / USEC_PER_MSEC;
}

/* {"type", "pod_uid", "group", "cause"} and the members of `more`, whose reference is taken; cause
 * and more may be NULL. */
void tell_event(const struct pod *pod, const char *type, const char *cause, json_t *more);

void tell_count(const struct pod *pod, enum agent_stat stat, unsigned series);
void tell_duration(const struct pod *pod, enum agent_stat stat, uint64_t usec);
