/* From packets to wakes: what tells of them, and for which pods.
 *
 * Packets are told of by the trigger (BPF). What came before it was armed, and what came while the
 * agent was away, is found by a look at the pod's sockets once it is frozen: the lost wakes. Where
 * BPF cannot be had, the accept queues are polled WAKER_POLL_USEC apart, and the rest of the
 * sockets is looked at pod by pod, one each time. Which of the two it is, is said once at the start
 * and in the metrics. */
#pragma once

#include "agent/trigger.h"

enum trigger_means { TRIGGER_MEANS_BPF, TRIGGER_MEANS_POLL, TRIGGER_MEANS_NONE, TRIGGER_MEANS_N };
extern const char *const trigger_means_names[];

/* So that a wake takes 250 ms at most, with what a look takes. */
#define WAKER_POLL_USEC (200 * USEC_PER_MSEC)

/* A request that was read this long ago and is not answered is taken to be still wanted. */
#define WAKER_UNANSWERED_MSEC 30000

/* Networks to ignore, and then some. */
#define WAKER_SOURCES_MAX 64

struct waker_config {
    enum { WAKER_AUTO, WAKER_BPF, WAKER_POLL, WAKER_OFF } wanted;
    struct trigger_source ignored[WAKER_SOURCES_MAX];
    unsigned n_ignored;
    const char *kubelet_cgroup; /* path below the cgroup root, or NULL: the usual ones are tried */
};

struct freezer;
struct pod;
struct waker;
struct waker_arm;

/* config NULL: nothing wakes but calls. What was wanted and cannot be had is a failure; with
 * WAKER_AUTO it is only said. */
int waker_open(struct waker **ret, struct freezer *freezer, const struct waker_config *config,
               struct error *error) MUST_CHECK;
struct waker *waker_close(struct waker *waker);
enum trigger_means waker_means(const struct waker *waker);

/* Before the freeze, on the loop; then on a worker, since attaching may block. A pod that cannot be
 * armed is frozen all the same: calls thaw it. */
void waker_prepare(struct pod *pod);
void waker_attach(struct pod *pod);

/* After it: did something come before the trigger was armed? */
void waker_look(struct pod *pod);

/* What tells of packets for this pod: TRIGGER_MEANS_NONE when nothing does. */
enum trigger_means waker_means_of(const struct pod *pod);

/* Harmless when it is not armed. */
void waker_disarm(struct pod *pod);

/* The freezer's own. */
struct waker *freezer_waker(const struct freezer *freezer);
