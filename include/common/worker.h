/* A small fixed pool of threads for what blocks in the kernel.
 *
 * Workers share no state with the loop. A job is embedded in its owner; `run` is called on a worker
 * thread and may touch only the job's own fields; `done` is called on the loop thread afterwards.
 * Between submit and done the job (and so its owner) must stay alive and belongs to the pool.
 *
 * Jobs run in the order of submission. A long task is a chain of short jobs, each submitted from
 * the `done` of the one before: that is what makes many of them take turns, and what lets the loop
 * stop one by not submitting the next.
 *
 * All functions are for the loop thread. No signal reaches a worker. */
#pragma once

#include <stdbool.h>

#include <systemd/sd-event.h>

#include "common/error.h"

struct worker_pool;

struct worker_job {
    void (*run)(struct worker_job *job);     /* on a worker */
    void (*done)(struct worker_job *job);    /* on the loop */
    void (*dropped)(struct worker_job *job); /* on the loop, in the place of done; or NULL */
    struct worker_job *next;                 /* the pool's */
};

struct worker_config {
    const char *name; /* of the threads, at most 15 characters */
    unsigned threads; /* 1 or more */
    int nice;         /* of the threads, 0..19: so that work in the background yields to the loop */
};

int worker_pool_open(struct worker_pool **ret, sd_event *event, const struct worker_config *config,
                     struct error *error) MUST_CHECK;

/* Waits for the jobs that are running, calls done for what had run, and drops those that are queued
 * (dropped is called for these, and neither run nor done). What is submitted from then on, by such
 * a done too, is dropped at once. Pools whose jobs submit to each other's are all stopped before
 * the first is closed. Not from within a done. NULL-safe. */
void worker_pool_stop(struct worker_pool *pool);

/* Stops it, if that was not done, and frees it. NULL-safe, returns NULL. */
struct worker_pool *worker_pool_close(struct worker_pool *pool);

/* Cannot fail: the job brings its own memory. */
void worker_submit(struct worker_pool *pool, struct worker_job *job);

/* Jobs submitted and not yet done. */
unsigned worker_pool_pending(const struct worker_pool *pool);
