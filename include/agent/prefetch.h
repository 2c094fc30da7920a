/* Brings a pod's pages back at a thaw, before the app misses them.
 *
 * The pod runs again before this begins, and never waits for it: a chain of steps of about 10 ms on
 * a worker, ended by not submitting the next. It holds copies of the groups' fds and is known by
 * the pod's UID, because the freezer has forgotten a thawed pod long before its pages are back.
 *
 * Which pages: see agent/pagein.h. What was mapped of files is noted just before the reclaim
 * (prefetch_note). In the mode `recorded` it is also noted what the app has touched a few seconds
 * after it woke, and that is what the next wake begins with: asking for pages does not map them, so
 * what is mapped was touched. A first wake has no record and is as `all`.
 *
 * Loop thread only. */
#pragma once

#include <systemd/sd-event.h>

#include "agent/pagein.h"
#include "common/worker.h"

enum prefetch_mode { PREFETCH_OFF, PREFETCH_ALL, PREFETCH_RECORDED };
extern const char *const prefetch_mode_names[]; /* NULL-terminated */

/* What the app touched in this time after a wake is its working set. */
#define PREFETCH_RECORD_USEC (3 * USEC_PER_SEC)

/* MemAvailable that is left alone unless the configuration says otherwise: a share of MemTotal. */
#define PREFETCH_FLOOR_SHARE 20

enum prefetch_outcome {
    PREFETCH_E_UNABLE = 1, /* this kernel or our capabilities do not suffice */
};

struct prefetch_result {
    uint64_t swapped_in; /* bytes, as in struct pagein_result */
    uint64_t file_read;
    uint64_t usec; /* since prefetch_start */
    enum pagein_end end;
    struct error error; /* of PAGEIN_FAILED */
};

struct prefetcher_config {
    sd_event *event;
    struct worker_pool *pool; /* not the reclaimers': a wake does not wait for their chunks */
    enum prefetch_mode mode;
    uint64_t memory_floor; /* bytes; 0 for the default */
    /* A prefetch has ended by itself or was stopped. May be NULL. */
    void (*done)(const char *pod_uid, const struct prefetch_result *result, void *userdata);
    void *userdata;
};

struct prefetcher;

/* Can it work here at all? PREFETCH_E_UNABLE with the reason. Whether a pod's processes can be seen
 * shows only with that pod (PAGEIN_HIDDEN). */
int prefetch_probe(struct error *error) MUST_CHECK;

int prefetcher_open(struct prefetcher **ret, const struct prefetcher_config *config,
                    struct error *error) MUST_CHECK;

/* Close the pool before. Calls nothing back. NULL-safe, returns NULL. */
struct prefetcher *prefetcher_close(struct prefetcher *prefetcher);

/* The fds are copied; those of containers that are gone are -1. */
struct prefetch_pod {
    const char *uid;
    const int *fds; /* the containers' groups */
    unsigned n_fds;
    int pod_fd; /* the group above them, for its limits; -1 for none */
};

/* The pod is frozen and still has its memory: notes what a wake will need that the kernel will not
 * tell by then, and calls `noted` (unless stopped), at once where there is nothing to note. */
void prefetch_note(struct prefetcher *prefetcher, const struct prefetch_pod *pod,
                   void (*noted)(void *userdata), void *userdata);

/* The pod runs again. Ends a note or an earlier prefetch of the same pod. */
int prefetch_start(struct prefetcher *prefetcher, const struct prefetch_pod *pod,
                   struct error *error) MUST_CHECK;

/* The pod is to be frozen again: no further step, `done` with PAGEIN_STOPPED. Harmless when nothing
 * is under way. */
void prefetch_stop(struct prefetcher *prefetcher, const char *uid);

/* The pod is gone: the same, and what was noted of it is forgotten. */
void prefetch_forget(struct prefetcher *prefetcher, const char *uid);

/* Pods that are under way. */
unsigned prefetch_count(const struct prefetcher *prefetcher);
