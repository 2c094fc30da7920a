#include "agent/reclaim.h"

#include <fcntl.h>
#include <stdbool.h>

#include "agent/cgroup.h"
#include "common/loop.h"

/* EAGAIN in a row without progress before a group counts as empty: measured on 6.1 and 6.12, three
 * were enough in all runs to end below 1 MiB. A kernel that claims success counts as dry only when
 * nothing at all has moved. */
#define DRY_MAX      3
#define DRY_PROGRESS ((uint64_t)1 << 20)

/* How fast the swap is shows only then: 100 ms at 40 MiB/s. */
#define CHUNK_FIRST ((uint64_t)4 << 20)

struct reclaim {
    struct worker_job job;
    struct reclaim_config config;
    struct reclaim_result result;
    uint64_t started_usec;
    uint64_t chunk;
    bool stopped;
    bool dropped; /* by the pool: no callback will free it */
    unsigned dry;
    unsigned current; /* index into fds */
    unsigned n_fds;

    struct { /* the worker's, between submit and done */
        uint64_t before, after, usec;
        int r;
    } step;
    int fds[];
};

static struct reclaim *reclaim_free(struct reclaim *reclaim)
{
    for (unsigned i = 0; i < reclaim->n_fds; i++)
        close_fd(reclaim->fds[i]);
    free(reclaim);
    return NULL;
}

/* On a worker. */
static void run_chunk(struct worker_job *job)
{
    struct reclaim *reclaim = container_of(job, struct reclaim, job);
    int fd = reclaim->fds[reclaim->current];
    uint64_t start = loop_now_usec();

    reclaim->step.before = reclaim->step.after = 0;
    reclaim->step.r = cgroup_read_value(fd, "memory.current", &reclaim->step.before, NULL);
    if (reclaim->step.r < 0)
        return;
    reclaim->step.r = cgroup_reclaim(fd, min_u64(reclaim->chunk, reclaim->step.before), NULL);
    if (cgroup_read_value(fd, "memory.current", &reclaim->step.after, NULL) < 0)
        reclaim->step.after = reclaim->step.before;
    else if (reclaim->step.r == -ENOENT) /* the group is there: a kernel before 5.19 */
        reclaim->step.r = -EOPNOTSUPP;
    reclaim->step.usec = loop_now_usec() - start;
}

static void adapt_chunk(struct reclaim *reclaim)
{
    if (reclaim->step.usec > RECLAIM_TARGET_USEC && reclaim->chunk > RECLAIM_CHUNK_MIN)
        reclaim->chunk /= 2;
    else if (reclaim->step.usec < RECLAIM_TARGET_USEC / 4)
        reclaim->chunk = min_u64(reclaim->chunk * 2, reclaim->config.chunk_max);
}

static bool is_dry(const struct reclaim *reclaim, uint64_t progress)
{
    return progress < (reclaim->step.r == CGROUP_E_DRY ? DRY_PROGRESS : 1);
}

/* Takes the chunk into the books; is there more to get from this group? */
static bool account(struct reclaim *reclaim)
{
    uint64_t before = reclaim->step.before, after = reclaim->step.after;
    uint64_t progress = before > after ? before - after : 0;

    if (reclaim->step.r < 0 && reclaim->step.r != -EINTR) {
        if (reclaim->result.r == 0 && !cgroup_is_gone(reclaim->step.r))
            reclaim->result.r = reclaim->step.r;
        return false;
    }
    reclaim->result.bytes += progress;
    adapt_chunk(reclaim);
    if (after <= RECLAIM_REST)
        return false;
    reclaim->dry = is_dry(reclaim, progress) ? reclaim->dry + 1 : 0;
    return reclaim->dry < DRY_MAX;
}

static void finish(struct reclaim *reclaim)
{
    reclaim->result.usec = loop_now_usec() - reclaim->started_usec;
    reclaim->config.done(&reclaim->result, reclaim->config.userdata);
    reclaim_free(reclaim);
}

/* On the loop. */
static void chunk_done(struct worker_job *job)
{
    struct reclaim *reclaim = container_of(job, struct reclaim, job);

    if (reclaim->stopped) {
        reclaim_free(reclaim);
        return;
    }
    if (!account(reclaim)) {
        reclaim->dry = 0;
        reclaim->current++;
    }
    if (reclaim->current == reclaim->n_fds)
        finish(reclaim);
    else
        worker_submit(reclaim->config.pool, job);
}

/* The pool has closed; who started it may hold it still. */
static void chunk_dropped(struct worker_job *job)
{
    struct reclaim *reclaim = container_of(job, struct reclaim, job);

    reclaim->dropped = true;
    if (reclaim->stopped)
        reclaim_free(reclaim);
}

int reclaim_start(struct reclaim **ret, const struct reclaim_config *config, const int *fds,
                  unsigned n_fds, struct error *error)
{
    struct reclaim *reclaim = calloc(1, sizeof *reclaim + n_fds * sizeof reclaim->fds[0]);

    if (!reclaim)
        return error_set(error, ENOMEM, "start reclaim");
    reclaim->job =
        (struct worker_job){ .run = run_chunk, .done = chunk_done, .dropped = chunk_dropped };
    reclaim->config = *config;
    reclaim->chunk = min_u64(CHUNK_FIRST, config->chunk_max);
    reclaim->started_usec = loop_now_usec();
    for (; reclaim->n_fds < n_fds; reclaim->n_fds++) {
        int fd = fcntl(fds[reclaim->n_fds], F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            int r = error_set(error, errno, "start reclaim");
            reclaim_free(reclaim);
            return r;
        }
        reclaim->fds[reclaim->n_fds] = fd;
    }
    worker_submit(config->pool, &reclaim->job);
    *ret = reclaim;
    return 0;
}

struct reclaim *reclaim_stop(struct reclaim *reclaim, struct reclaim_result *ret_result)
{
    if (reclaim) {
        reclaim->result.usec = loop_now_usec() - reclaim->started_usec;
        *ret_result = reclaim->result;
        reclaim->stopped = true;
        if (reclaim->dropped)
            reclaim_free(reclaim);
    }
    return NULL;
}
