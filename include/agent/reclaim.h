/* Pushes the memory of frozen groups out to swap, a chunk at a time on a worker.
 *
 * One write of everything would be practically uninterruptible, would go on after a thaw, and would
 * hold up the removal of the group and with it every mkdir on the node. Chunks have the same
 * throughput. The first is small; a chunk is made smaller when it blocks for longer than
 * RECLAIM_TARGET_USEC, and larger up to the maximum when it is far from that.
 *
 * The job owns copies of the fds: it can be left alone at any time, and the chunk that is in the
 * kernel then ends by itself. */
#pragma once

#include <stdint.h>

#include "common/worker.h"

/* A removal of the group waits for the chunk in flight, and all of cgroup_mutex with it. */
#define RECLAIM_TARGET_USEC (100 * USEC_PER_MSEC)
#define RECLAIM_CHUNK_MIN   ((uint64_t)1 << 20)

/* Less than this is not worth a chunk: kernel memory, page tables. */
#define RECLAIM_REST ((uint64_t)256 << 10)

struct reclaim;

struct reclaim_result {
    uint64_t bytes; /* by which memory.current went down */
    uint64_t usec;
    int r; /* 0, or -errno of the first group that refused (-EOPNOTSUPP: no memory.reclaim) */
};

struct reclaim_config {
    struct worker_pool *pool;
    uint64_t chunk_max; /* bytes */
    void (*done)(const struct reclaim_result *result, void *userdata);
    void *userdata;
};

/* `fds` are the groups', in the order in which to reclaim them; copied. */
int reclaim_start(struct reclaim **ret, const struct reclaim_config *config, const int *fds,
                  unsigned n_fds, struct error *error) MUST_CHECK;

/* No further chunk, no callback; frees itself when the chunk in flight has ended, or was dropped by
 * the pool's end. What was reclaimed so far is in *ret_result. NULL-safe, returns NULL. */
struct reclaim *reclaim_stop(struct reclaim *reclaim, struct reclaim_result *ret_result);
