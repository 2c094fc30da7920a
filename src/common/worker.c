#include "common/worker.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* First in, first out, linked through the jobs. */
struct queue {
    struct worker_job *head;
    struct worker_job *tail;
};

struct worker_pool {
    sd_event_source *source; /* of finished_fd */
    int finished_fd;         /* eventfd: `finished` is no longer empty */
    unsigned pending;        /* the loop's alone, so without the lock, */
    bool stopped;            /* and so is this */
    int nice;
    char name[16]; /* with its NUL all that the kernel keeps, prctl(2) PR_SET_NAME */

    pthread_mutex_t lock; /* of the following */
    pthread_cond_t submitted;
    struct queue waiting;
    struct queue finished;
    bool closing;

    unsigned n_threads;
    pthread_t threads[];
};

static void push(struct queue *queue, struct worker_job *job)
{
    job->next = NULL;
    if (queue->tail)
        queue->tail->next = job;
    else
        queue->head = job;
    queue->tail = job;
}

static struct worker_job *pop(struct queue *queue)
{
    struct worker_job *job = queue->head;

    if (!job)
        return NULL;
    queue->head = job->next;
    if (!queue->head)
        queue->tail = NULL;
    job->next = NULL;
    return job;
}

/* ---- worker threads ---- */

/* Waits for a job; NULL when the pool closes. */
static struct worker_job *next_job(struct worker_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing && !pool->waiting.head)
        pthread_cond_wait(&pool->submitted, &pool->lock);
    struct worker_job *job = pool->closing ? NULL : pop(&pool->waiting);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void finish_job(struct worker_pool *pool, struct worker_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool first = !pool->finished.head;
    push(&pool->finished, job);
    pthread_mutex_unlock(&pool->lock);

    /* Whoever finds it filled has been preceded by one who rings, and the loop takes all. So nobody
     * else would ring in our stead: until it does. */
    while (first && eventfd_write(pool->finished_fd, 1) < 0)
        ;
}

static void *work(void *userdata)
{
    struct worker_pool *pool = userdata;
    struct worker_job *job;

    /* Courtesies: a worker that cannot have its name or nice still works. Nice is a thread's own on
     * Linux, setpriority(2). */
    pthread_setname_np(pthread_self(), pool->name);
    setpriority(PRIO_PROCESS, (id_t)gettid(), pool->nice);

    while ((job = next_job(pool))) {
        job->run(job);
        finish_job(pool, job);
    }
    return NULL;
}

/* ---- loop thread ---- */

/* Takes what is finished at this moment: a `done` that submits again waits for the next round, so
 * that a chain of jobs cannot hold up the loop. */
static void deliver(struct worker_pool *pool)
{
    struct worker_job *job;

    pthread_mutex_lock(&pool->lock);
    struct queue finished = pool->finished;
    pool->finished = (struct queue){ 0 };
    pthread_mutex_unlock(&pool->lock);

    while ((job = pop(&finished))) {
        pool->pending--;
        job->done(job);
    }
}

static int on_finished(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    eventfd_t count;

    (void)source;
    (void)events;
    /* Emptied before the queue is taken: what comes in between rings again. */
    eventfd_read(fd, &count);
    deliver(userdata);
    return 0;
}

static int open_bell(struct worker_pool *pool, sd_event *event, struct error *error)
{
    pool->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->finished_fd < 0)
        return error_set(error, errno, "eventfd of the workers");

    int r = sd_event_add_io(event, &pool->source, pool->finished_fd, EPOLLIN, on_finished, pool);
    if (r < 0)
        return error_set(error, -r, "watch the workers");
    return 0;
}

static int start_threads(struct worker_pool *pool, unsigned n, struct error *error)
{
    sigset_t all, saved;
    int r = 0;

    /* A thread inherits its maker's mask. Signals are for the loop. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    while (r == 0 && pool->n_threads < n) {
        r = pthread_create(&pool->threads[pool->n_threads], NULL, work, pool);
        if (r == 0)
            pool->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &saved, NULL);

    if (r > 0)
        return error_set(error, r, "start worker thread %u of %u", pool->n_threads + 1, n);
    return 0;
}

static void close_pool_p(struct worker_pool **pool)
{
    *pool = worker_pool_close(*pool);
}

int worker_pool_open(struct worker_pool **ret, sd_event *event, const struct worker_config *config,
                     struct error *error)
{
    if (config->threads < 1)
        return error_set(error, EINVAL, "a pool of %u workers", config->threads);

    cleanup(close_pool_p) struct worker_pool *pool =
        calloc(1, sizeof(*pool) + config->threads * sizeof(pool->threads[0]));
    if (!pool)
        return error_set(error, ENOMEM, "worker pool");

    pool->finished_fd = -1;
    pool->nice = config->nice;
    snprintf(pool->name, sizeof(pool->name), "%s", config->name);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->submitted, NULL);

    int r = open_bell(pool, event, error);
    if (r < 0)
        return r;
    r = start_threads(pool, config->threads, error);
    if (r < 0)
        return r;

    *ret = TAKE_PTR(pool);
    return 0;
}

static void stop_threads(struct worker_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->submitted);
    pthread_mutex_unlock(&pool->lock);

    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
}

static void drop(struct worker_job *job)
{
    if (job->dropped)
        job->dropped(job);
}

void worker_pool_stop(struct worker_pool *pool)
{
    struct worker_job *job;

    if (!pool || pool->stopped)
        return;
    pool->stopped = true;
    stop_threads(pool);
    deliver(pool);
    while ((job = pop(&pool->waiting)))
        drop(job);
}

struct worker_pool *worker_pool_close(struct worker_pool *pool)
{
    if (!pool)
        return NULL;

    worker_pool_stop(pool);
    sd_event_source_disable_unref(pool->source);
    close_fd(pool->finished_fd);
    pthread_cond_destroy(&pool->submitted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return NULL;
}

void worker_submit(struct worker_pool *pool, struct worker_job *job)
{
    if (pool->stopped) {
        drop(job);
        return;
    }
    pool->pending++;
    pthread_mutex_lock(&pool->lock);
    push(&pool->waiting, job);
    pthread_mutex_unlock(&pool->lock);
    /* After the unlock, so that the worker that wakes does not wait at once for the lock. */
    pthread_cond_signal(&pool->submitted);
}

unsigned worker_pool_pending(const struct worker_pool *pool)
{
    return pool->pending;
}
