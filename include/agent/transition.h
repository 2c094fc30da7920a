/* What the freezer does to one pod: into the frozen state, and out of it.
 *
 * Undo is one function: transition_leave brings a pod back from wherever it is, and is also how it
 * is thawed. It runs the app first and does everything else after. Private to the freezer, its
 * watcher and the reconciler. */
#pragma once

#include "agent/freezer.h"

/* The pod is in the table, its record filled. Writes the record, then freezes. */
void transition_begin(struct pod *pod);

/* Goes on from "cgroup.freeze is 1 everywhere": waits for the kernel's word, then reclaims. For an
 * adopted pod. */
void transition_resume(struct pod *pod);

/* It is on its way out, or out and only not yet forgotten. */
static inline bool transition_is_leaving(const struct pod *pod)
{
    return pod->state == POD_THAWING || pod->state == POD_RUNNING;
}

/* Thaws now. Those who wait for the freeze get `result` and `error` (a pod that was frozen already
 * gives them 0). Does nothing when the pod is on its way already. */
void transition_leave(struct pod *pod, enum thaw_cause cause, int result,
                      const struct error *error);

/* The same for a packet; what is told of it says where from, and how long it took. */
void transition_wake(struct pod *pod, const struct trigger_event *packet);

/* Reclaim that was put off begins now. Harmless to every other pod. */
void transition_reclaim(struct pod *pod);

/* Somebody waits for the end of a thaw: answer soon, and try again soon what failed. */
void transition_hurry(struct pod *pod);

/* Every container is gone, or has no process: groups that are still there are thawed, so that
 * nothing is born frozen in them, and the pod is forgotten. */
void transition_forget(struct pod *pod);

/* Compares the pod with its cgroups and acts on what differs: all gone, thawed by somebody else, a
 * container that came or went, memory.swap.max set back. */
void transition_check(struct pod *pod);

/* ---- what the freezer lends to the transitions (freezer.c) ---- */

/* Calls back and unlinks every waiter of the pod whose `wants` is in the bit mask. */
#define WAITERS(wants) (1u << (wants))
#define FOR_FROZEN     WAITERS(WAITS_FOR_FROZEN)
#define FOR_FREEZE     (WAITERS(WAITS_FOR_FROZEN) | WAITERS(WAITS_FOR_RECLAIM))
#define FOR_THAWED     WAITERS(WAITS_FOR_THAWED)
void freezer_answer(struct pod *pod, unsigned mask, int r, const struct error *error);

/* As what a freeze that ended so is counted. */
enum stat_freeze freezer_failure(int r);

/* A pod whose record was written or read enters the table. */
struct pod *freezer_insert(struct freezer *freezer, struct pod_cgroups *cgroups);

/* Answers who is left, takes the pod out of the table, frees it, and begins anew for those who
 * waited to freeze it again. */
void freezer_drop(struct pod *pod);
