#include "agent/prefetch.h"

#include <string.h>

#include <uthash.h>

#include "agent/kernfile.h"
#include "agent/pages.h"
#include "common/loop.h"

const char *const prefetch_mode_names[] = {
    [PREFETCH_OFF] = "off", [PREFETCH_ALL] = "all", [PREFETCH_RECORDED] = "recorded", NULL
};

enum phase {
    NOTING,   /* before a reclaim */
    FETCHING, /* after a thaw */
    WAITING,  /* for the app to touch what it needs */
    RECORDING,
};

/* One pod under way. */
struct run {
    UT_hash_handle hh; /* in `running`, while not stopped */
    struct worker_job job;
    struct prefetcher *prefetcher;
    struct run *next, **link; /* in `all` */
    char uid[POD_UID_SIZE];
    enum phase phase;
    bool busy; /* the job belongs to the pool */
    bool stopped;
    bool more;                 /* the worker's answer */
    struct pagein_result seen; /* after the last step */
    uint64_t started_usec;
    sd_event_source *timer;
    struct pagein *pagein;    /* the worker's while busy */
    struct pagein *recording; /* for after the fetch; NULL when nothing is recorded */
    void (*noted)(void *userdata);
    void *userdata;
};

struct prefetcher {
    struct prefetcher_config config;
    struct workset_table *known;
    struct run *running; /* by UID */
    struct run *all;     /* and those that are stopped, but whose step has not ended */
};

int prefetch_probe(struct error *error)
{
    return pages_probe(error) < 0 ? PREFETCH_E_UNABLE : 0;
}

/* ---- open and close ---- */

static uint64_t default_floor(void)
{
    struct kernfile_meminfo info;

    return kernfile_read_meminfo(&info) < 0 ? 0 : info.mem_total / PREFETCH_FLOOR_SHARE;
}

int prefetcher_open(struct prefetcher **ret, const struct prefetcher_config *config,
                    struct error *error)
{
    struct prefetcher *prefetcher = calloc(1, sizeof *prefetcher);

    if (!prefetcher)
        return error_set(error, ENOMEM, "open the prefetcher");
    prefetcher->config = *config;
    if (config->memory_floor == 0)
        prefetcher->config.memory_floor = default_floor();
    int r = workset_table_open(&prefetcher->known, WORKSET_TABLE_MAX, error);
    if (r < 0) {
        free(prefetcher);
        return r;
    }
    *ret = prefetcher;
    return 0;
}

static void run_free(struct run *run)
{
    if (!run->stopped)
        HASH_DEL(run->prefetcher->running, run);
    *run->link = run->next;
    if (run->next)
        run->next->link = run->link;
    loop_timer_stop(run->timer);
    sd_event_source_unref(run->timer);
    pagein_close(run->pagein);
    pagein_close(run->recording);
    free(run);
}

struct prefetcher *prefetcher_close(struct prefetcher *prefetcher)
{
    if (!prefetcher)
        return NULL;
    while (prefetcher->all)
        run_free(prefetcher->all);
    workset_table_close(prefetcher->known);
    free(prefetcher);
    return NULL;
}

unsigned prefetch_count(const struct prefetcher *prefetcher)
{
    return HASH_COUNT(prefetcher->running);
}

/* ---- a run ---- */

static struct run *run_new(struct prefetcher *prefetcher, const char *uid)
{
    struct run *run = calloc(1, sizeof *run);

    if (!run)
        return NULL;
    run->prefetcher = prefetcher;
    run->started_usec = loop_now_usec();
    snprintf(run->uid, sizeof run->uid, "%s", uid);
    run->next = prefetcher->all;
    run->link = &prefetcher->all;
    if (run->next)
        run->next->link = &run->next;
    prefetcher->all = run;
    HASH_ADD_STR(prefetcher->running, uid, run);
    return run;
}

static struct run *find(const struct prefetcher *prefetcher, const char *uid)
{
    struct run *run;

    HASH_FIND_STR(prefetcher->running, uid, run);
    return run;
}

static void report(const struct run *run, enum pagein_end end)
{
    const struct prefetcher_config *config = &run->prefetcher->config;

    if (config->done)
        config->done(run->uid,
                     &(struct prefetch_result){ .swapped_in = run->seen.swapped_in,
                                                .file_read = run->seen.file_read,
                                                .usec = loop_now_usec() - run->started_usec,
                                                .end = end,
                                                .error = run->seen.error },
                     config->userdata);
}

static void take_step(struct worker_job *job)
{
    struct run *run = container_of(job, struct run, job);

    run->more = pagein_step(run->pagein);
}

static void on_step(struct worker_job *job);

static void submit(struct run *run)
{
    run->busy = true;
    run->job = (struct worker_job){ .run = take_step, .done = on_step };
    worker_submit(run->prefetcher->config.pool, &run->job);
}

/* ---- after a fetch: what has the app touched? ---- */

static int on_touched(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct run *run = userdata;

    (void)source;
    (void)usec;
    run->phase = RECORDING;
    submit(run);
    return 0;
}

/* Nothing is lost but a record when the timer cannot be had. */
static void wait_for_touches(struct run *run)
{
    uint64_t passed = loop_now_usec() - run->started_usec;
    uint64_t left = passed < PREFETCH_RECORD_USEC ? PREFETCH_RECORD_USEC - passed : 0;

    pagein_close(run->pagein);
    run->pagein = TAKE_PTR(run->recording);
    run->phase = WAITING;
    if (!run->pagein ||
        loop_timer(run->prefetcher->config.event, &run->timer, left, on_touched, run) < 0)
        run_free(run);
}

static void keep_noted(struct run *run)
{
    struct workset set = { 0 };

    if (run->seen.end != PAGEIN_DONE)
        return;
    pagein_take_noted(run->pagein, &set);
    workset_table_put(run->prefetcher->known, run->uid, &set);
}

/* ---- the end of a step ---- */

static void finish_note(struct run *run)
{
    void (*noted)(void *) = run->noted;
    void *userdata = run->userdata;

    keep_noted(run);
    run_free(run);
    noted(userdata);
}

static void finish(struct run *run)
{
    switch (run->phase) {
    case NOTING:
        finish_note(run);
        break;
    case FETCHING:
        report(run, run->seen.end);
        wait_for_touches(run);
        break;
    case WAITING:
    case RECORDING:
        keep_noted(run);
        run_free(run);
        break;
    }
}

static void on_step(struct worker_job *job)
{
    struct run *run = container_of(job, struct run, job);

    run->busy = false;
    run->seen = *pagein_result(run->pagein);
    if (run->stopped)
        run_free(run);
    else if (run->more)
        submit(run);
    else
        finish(run);
}

/* ---- for the freezer ---- */

static int open_pagein(const struct prefetcher *prefetcher, const struct prefetch_pod *pod,
                       enum pagein_task task, struct pagein **ret, struct error *error)
{
    struct pagein_config config = { .task = task,
                                    .fds = pod->fds,
                                    .n_fds = pod->n_fds,
                                    .pod_fd = pod->pod_fd,
                                    .memory_floor = prefetcher->config.memory_floor };

    return pagein_open(ret, &config, error);
}

void prefetch_stop(struct prefetcher *prefetcher, const char *uid)
{
    struct run *run = find(prefetcher, uid);

    if (!run)
        return;
    HASH_DEL(prefetcher->running, run);
    run->stopped = true;
    if (run->phase == FETCHING)
        report(run, PAGEIN_STOPPED);
    if (!run->busy)
        run_free(run);
}

void prefetch_forget(struct prefetcher *prefetcher, const char *uid)
{
    prefetch_stop(prefetcher, uid);
    workset_table_forget(prefetcher->known, uid);
}

/* A record of what was touched is better than one of what is mapped. */
static bool is_worth_noting(const struct prefetcher *prefetcher, const char *uid)
{
    enum prefetch_mode mode = prefetcher->config.mode;

    return mode == PREFETCH_ALL ||
           (mode == PREFETCH_RECORDED && !workset_table_get(prefetcher->known, uid));
}

void prefetch_note(struct prefetcher *prefetcher, const struct prefetch_pod *pod,
                   void (*noted)(void *), void *userdata)
{
    struct run *run = NULL;

    prefetch_stop(prefetcher, pod->uid);
    if (is_worth_noting(prefetcher, pod->uid))
        run = run_new(prefetcher, pod->uid);
    if (run && open_pagein(prefetcher, pod, PAGEIN_NOTE_FILES, &run->pagein, NULL) < 0) {
        run_free(run);
        run = NULL;
    }
    if (!run) {
        noted(userdata);
        return;
    }
    run->phase = NOTING;
    run->noted = noted;
    run->userdata = userdata;
    submit(run);
}

/* Gives the fetch a copy of what is known: the table may change meanwhile. */
static void tell_known(struct run *run)
{
    const struct workset *known = workset_table_get(run->prefetcher->known, run->uid);
    struct workset copy;

    if (known && workset_copy(&copy, known))
        pagein_know(run->pagein, &copy);
}

int prefetch_start(struct prefetcher *prefetcher, const struct prefetch_pod *pod,
                   struct error *error)
{
    if (prefetcher->config.mode == PREFETCH_OFF)
        return 0;
    prefetch_stop(prefetcher, pod->uid);
    struct run *run = run_new(prefetcher, pod->uid);
    if (!run)
        return error_set(error, ENOMEM, "start a prefetch");
    run->phase = FETCHING;
    int r = open_pagein(prefetcher, pod, PAGEIN_FETCH, &run->pagein, error);
    if (r == 0 && prefetcher->config.mode == PREFETCH_RECORDED)
        r = open_pagein(prefetcher, pod, PAGEIN_NOTE_ALL, &run->recording, error);
    if (r < 0) {
        run_free(run);
        return r;
    }
    tell_known(run);
    submit(run);
    return 0;
}
