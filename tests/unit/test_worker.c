#include "common/worker.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/loop.h"

#define PATIENCE_SEC 60

/* ---- calls that fail, and the moment when close() waits ---- */

static unsigned threads_allowed = -1U;
static unsigned joined;
static sem_t *post_at_join;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __real_pthread_join(pthread_t thread, void **ret);
int __wrap_pthread_join(pthread_t thread, void **ret);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    if (threads_allowed == 0)
        return EAGAIN;
    threads_allowed--;
    return __real_pthread_create(thread, attr, run, arg);
}

int __wrap_pthread_join(pthread_t thread, void **ret)
{
    if (post_at_join)
        sem_post(post_at_join);
    post_at_join = NULL;
    joined++;
    return __real_pthread_join(thread, ret);
}

/* ---- the bench: a loop, a pool, jobs that count ---- */

static sd_event *loop;
static unsigned n_done;
static unsigned exit_after; /* so many jobs done */

struct counted_job {
    struct worker_job job;
    unsigned number;
    unsigned ran, done, dropped;
    unsigned done_as; /* the n-th of all */
    pthread_t ran_on;
};

static void count_run(struct worker_job *job)
{
    struct counted_job *counted = container_of(job, struct counted_job, job);

    counted->ran++;
    counted->ran_on = pthread_self();
}

static void note_done(void)
{
    if (++n_done == exit_after)
        sd_event_exit(loop, 0);
}

static void count_done(struct worker_job *job)
{
    struct counted_job *counted = container_of(job, struct counted_job, job);

    counted->done++;
    counted->done_as = n_done;
    note_done();
}

static void count_dropped(struct worker_job *job)
{
    container_of(job, struct counted_job, job)->dropped++;
}

static struct worker_pool *open_pool(unsigned threads)
{
    struct worker_pool *pool = NULL;
    const struct worker_config config = { .name = "torpor-test", .threads = threads, .nice = 7 };

    assert_int_equal(worker_pool_open(&pool, loop, &config, NULL), 0);
    return pool;
}

static void run_until_done(unsigned n)
{
    exit_after = n_done + n;
    assert_int_equal(sd_event_loop(loop), 0);
}

static int setup(void **state)
{
    (void)state;
    alarm(PATIENCE_SEC);
    n_done = 0;
    exit_after = 0;
    joined = 0;
    return loop_open(&loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    loop = loop_close(loop);
    alarm(0);
    return 0;
}

/* ---- tests ---- */

static void test_runs_elsewhere_and_is_done_here(void **state)
{
    struct counted_job job = { .job = { .run = count_run, .done = count_done } };

    (void)state;
    struct worker_pool *pool = open_pool(1);
    assert_int_equal(worker_pool_pending(pool), 0);
    worker_submit(pool, &job.job);
    assert_int_equal(worker_pool_pending(pool), 1);
    assert_int_equal(job.done, 0);
    while (job.done == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);

    assert_int_equal(job.ran, 1);
    assert_int_equal(job.done, 1);
    assert_false(pthread_equal(job.ran_on, pthread_self()));
    assert_int_equal(worker_pool_pending(pool), 0);
    assert_int_equal(sd_event_run(loop, 0), 0); /* and then there is silence */
    assert_null(worker_pool_close(pool));
}

static void test_one_worker_keeps_the_order(void **state)
{
    enum { N = 500 };
    static struct counted_job jobs[N];

    (void)state;
    struct worker_pool *pool = open_pool(1);
    for (unsigned i = 0; i < N; i++) {
        jobs[i] = (struct counted_job){ .job = { .run = count_run, .done = count_done } };
        worker_submit(pool, &jobs[i].job);
    }
    assert_int_equal(worker_pool_pending(pool), N);
    run_until_done(N);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(jobs[i].done_as, i);
    worker_pool_close(pool);
}

static void test_many_jobs_on_many_workers_are_each_done_once(void **state)
{
    enum { N = 20000 };
    static struct counted_job jobs[N];

    (void)state;
    struct worker_pool *pool = open_pool(4);
    for (unsigned i = 0; i < N; i++) {
        jobs[i] = (struct counted_job){ .job = { .run = count_run, .done = count_done } };
        worker_submit(pool, &jobs[i].job);
    }
    run_until_done(N);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(jobs[i].ran, 1);
        assert_int_equal(jobs[i].done, 1);
    }
    assert_int_equal(worker_pool_pending(pool), 0);
    worker_pool_close(pool);
}

static pthread_barrier_t meeting;

static void meet(struct worker_job *job)
{
    (void)job;
    pthread_barrier_wait(&meeting);
}

static void just_done(struct worker_job *job)
{
    (void)job;
    note_done();
}

/* Each waits for the others: with fewer threads at work this would never end. */
static void test_workers_work_at_the_same_time(void **state)
{
    struct worker_job jobs[3];

    (void)state;
    pthread_barrier_init(&meeting, NULL, ARRAY_SIZE(jobs));
    struct worker_pool *pool = open_pool(ARRAY_SIZE(jobs));
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        jobs[i] = (struct worker_job){ .run = meet, .done = just_done };
        worker_submit(pool, &jobs[i]);
    }
    run_until_done(ARRAY_SIZE(jobs));
    worker_pool_close(pool);
    pthread_barrier_destroy(&meeting);
}

struct chain {
    struct worker_job job;
    struct worker_pool *pool;
    unsigned left;
    bool in_done;
    bool nested;
};

static void run_nothing(struct worker_job *job)
{
    (void)job;
}

static void submit_next(struct worker_job *job)
{
    struct chain *chain = container_of(job, struct chain, job);

    chain->nested |= chain->in_done;
    chain->in_done = true;
    if (--chain->left > 0)
        worker_submit(chain->pool, job);
    else
        note_done();
    chain->in_done = false;
}

static void test_done_may_submit_the_same_job_again(void **state)
{
    struct chain chain = { .job = { .run = run_nothing, .done = submit_next }, .left = 2000 };

    (void)state;
    chain.pool = open_pool(2);
    worker_submit(chain.pool, &chain.job);
    run_until_done(1);
    assert_int_equal(chain.left, 0);
    assert_false(chain.nested);
    worker_pool_close(chain.pool);
}

struct self_portrait {
    struct worker_job job;
    sigset_t blocked;
    char name[16];
    int nice;
};

static void look_at_oneself(struct worker_job *job)
{
    struct self_portrait *self = container_of(job, struct self_portrait, job);

    pthread_sigmask(SIG_BLOCK, NULL, &self->blocked);
    pthread_getname_np(pthread_self(), self->name, sizeof(self->name));
    self->nice = getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void check_all_blocked(const sigset_t *blocked)
{
    for (int i = 1; i <= SIGRTMAX; i++) {
        /* Two cannot be blocked, and those below SIGRTMIN are glibc's own. */
        if (i == SIGKILL || i == SIGSTOP || (i >= 32 && i < SIGRTMIN))
            continue;
        assert_true(sigismember(blocked, i));
    }
}

static void test_a_worker_is_named_nice_and_deaf(void **state)
{
    struct self_portrait self = { .job = { .run = look_at_oneself, .done = just_done } };
    const struct worker_config config = { .name = "a-name-of-sixteen", .threads = 1, .nice = 7 };
    struct worker_pool *pool = NULL;
    int own_nice = getpriority(PRIO_PROCESS, 0);
    sigset_t before, after;

    (void)state;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    assert_int_equal(worker_pool_open(&pool, loop, &config, NULL), 0);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    worker_submit(pool, &self.job);
    run_until_done(1);

    assert_string_equal(self.name, "a-name-of-sixte");
    assert_int_equal(self.nice, 7);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), own_nice);
    check_all_blocked(&self.blocked);
    assert_false(sigismember(&after, SIGUSR1));
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
    worker_pool_close(pool);
}

static sem_t started, gate;

static void wait_at_gate(struct worker_job *job)
{
    sem_post(&started);
    while (sem_wait(&gate) < 0) /* signals of a debugger */
        ;
    count_run(job);
}

static void test_close_waits_for_what_runs_and_drops_what_waits(void **state)
{
    struct counted_job running = { .job = { .run = wait_at_gate, .done = count_done } };
    struct counted_job queued[2] = {
        { .job = { .run = count_run, .done = count_done, .dropped = count_dropped } },
        { .job = { .run = count_run, .done = count_done } }, /* whose owner need not know */
    };

    (void)state;
    sem_init(&started, 0, 0);
    sem_init(&gate, 0, 0);
    struct worker_pool *pool = open_pool(1);
    worker_submit(pool, &running.job);
    worker_submit(pool, &queued[0].job);
    worker_submit(pool, &queued[1].job);
    assert_int_equal(sem_wait(&started), 0);

    post_at_join = &gate; /* when close has told the workers and begins to wait for them */
    worker_pool_close(pool);
    assert_int_equal(running.ran, 1);
    assert_int_equal(running.done, 1);
    assert_int_equal(queued[0].ran + queued[0].done, 0);
    assert_int_equal(queued[0].dropped, 1);
    assert_int_equal(queued[1].ran + queued[1].done, 0);
    assert_int_equal(joined, 1);
}

static void test_close_drops_what_its_done_submits(void **state)
{
    struct chain chain = { .job = { .run = run_nothing, .done = submit_next }, .left = 2 };

    (void)state;
    sem_init(&started, 0, 0);
    sem_init(&gate, 0, 0);
    struct counted_job blocker = { .job = { .run = wait_at_gate, .done = count_done } };
    chain.pool = open_pool(1);
    worker_submit(chain.pool, &chain.job);
    worker_submit(chain.pool, &blocker.job);
    assert_int_equal(sem_wait(&started), 0); /* the first has run, its done has not */
    assert_int_equal(chain.left, 2);

    post_at_join = &gate;
    worker_pool_close(chain.pool);
    assert_int_equal(chain.left, 1);
    assert_int_equal(blocker.done, 1);
}

static void test_a_stopped_pool_drops_what_it_is_given(void **state)
{
    struct counted_job job = {
        .job = { .run = count_run, .done = count_done, .dropped = count_dropped }
    };

    (void)state;
    struct worker_pool *pool = open_pool(2);
    worker_submit(pool, &job.job);
    while (job.done == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    worker_pool_stop(pool);
    worker_pool_stop(pool); /* harmless */
    worker_pool_stop(NULL);
    worker_submit(pool, &job.job);
    assert_int_equal(job.dropped, 1); /* at once */
    assert_int_equal(worker_pool_pending(pool), 0);
    worker_pool_close(pool);
    assert_int_equal(joined, 2);
    assert_int_equal(job.ran + job.done + job.dropped, 3);
}

static void test_close_takes_null_and_the_unused(void **state)
{
    (void)state;
    assert_null(worker_pool_close(NULL));
    assert_null(worker_pool_close(open_pool(3)));
    assert_int_equal(joined, 3);
}

static void test_no_pool_without_all_of_its_threads(void **state)
{
    const struct worker_config config = { .name = "few", .threads = 3 };
    struct worker_pool *pool = NULL;
    struct error error = ERROR_INIT;

    (void)state;
    threads_allowed = 2;
    assert_int_equal(worker_pool_open(&pool, loop, &config, &error), -EAGAIN);
    threads_allowed = -1U;
    assert_null(pool);
    assert_int_equal(joined, 2);
    assert_string_equal(error.msg, "start worker thread 3 of 3: Resource temporarily unavailable");
}

static void test_no_pool_of_none(void **state)
{
    const struct worker_config config = { .name = "none" };
    struct worker_pool *pool = NULL;

    (void)state;
    assert_int_equal(worker_pool_open(&pool, loop, &config, NULL), -EINVAL);
    assert_null(pool);
}

#define in_loop(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        in_loop(test_runs_elsewhere_and_is_done_here),
        in_loop(test_one_worker_keeps_the_order),
        in_loop(test_many_jobs_on_many_workers_are_each_done_once),
        in_loop(test_workers_work_at_the_same_time),
        in_loop(test_done_may_submit_the_same_job_again),
        in_loop(test_a_worker_is_named_nice_and_deaf),
        in_loop(test_close_waits_for_what_runs_and_drops_what_waits),
        in_loop(test_close_drops_what_its_done_submits),
        in_loop(test_a_stopped_pool_drops_what_it_is_given),
        in_loop(test_close_takes_null_and_the_unused),
        in_loop(test_no_pool_without_all_of_its_threads),
        in_loop(test_no_pool_of_none),
    };

    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
