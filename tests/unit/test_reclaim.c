#include "agent/reclaim.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "fake_calls.h"
#include "node.h"

#define MIB ((uint64_t)1 << 20)

/* ---- the bench: one group or more of pod 1, and who is told of the end ---- */

static struct node *node;

struct told {
    unsigned times;
    struct reclaim_result result;
};

static int setup(void **state)
{
    (void)state;
    node = node_open(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    node = node_close(node);
    return 0;
}

static void on_done(const struct reclaim_result *result, void *userdata)
{
    struct told *told = userdata;

    told->times++;
    told->result = *result;
}

static struct reclaim *start(unsigned n_groups, uint64_t chunk_max, struct told *told)
{
    struct reclaim_config config = {
        .pool = node->reclaimers, .chunk_max = chunk_max, .done = on_done, .userdata = told
    };
    struct reclaim *reclaim = NULL;
    int fds[4] = { 0 };

    *told = (struct told){ 0 };
    for (unsigned k = 0; k < n_groups; k++)
        assert_int_equal(cgroup_open(node->root, container_path(1, k), &fds[k], NULL), 0);
    assert_int_equal(reclaim_start(&reclaim, &config, fds, n_groups, NULL), 0);
    for (unsigned k = 0; k < n_groups; k++)
        close(fds[k]); /* it has copies */
    return reclaim;
}

static void run(unsigned n_groups, uint64_t chunk_max, struct told *told)
{
    start(n_groups, chunk_max, told);
    AWAIT(node, told->times > 0);
    assert_int_equal(told->times, 1);
    assert_int_equal(worker_pool_pending(node->reclaimers), 0);
}

static uint64_t memory_of(unsigned k)
{
    return strtoull(fake_read(container_path(1, k), "memory.current"), NULL, 10);
}

/* ---- tests ---- */

static void test_everything_goes_in_chunks(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 2);
    run(2, 8 * MIB, &told);
    assert_int_equal(told.result.bytes, 2 * POD_MEMORY);
    assert_int_equal(told.result.r, 0);
    assert_int_equal(memory_of(0), 0);
    assert_int_equal(memory_of(1), 0);
    assert_true(fake_journal_count("memory.reclaim") >= 2 * POD_MEMORY / (8 * MIB));
    assert_int_equal(fake_journal_count(keep("memory.reclaim=%llu", 16ull << 20)), 0);
    /* one group after the other */
    assert_true(fake_journal_last(container_id(0)) < fake_journal_first(container_id(1)));
}

static void test_no_more_is_asked_for_than_is_there(void **state)
{
    struct told told;

    (void)state;
    fake_group(container_path(1, 0), "max", 3 * MIB + 4096);
    run(1, 16 * MIB, &told);
    assert_int_equal(fake_journal_count(keep("memory.reclaim=%llu", 3ull * MIB + 4096)), 1);
    assert_int_equal(told.result.bytes, 3 * MIB + 4096);
}

static void test_what_will_not_go_is_the_normal_end(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 1);
    fake_keeps(container_path(1, 0), 10 * MIB);
    run(1, 16 * MIB, &told);
    assert_int_equal(told.result.bytes, POD_MEMORY - 10 * MIB);
    assert_int_equal(told.result.r, 0);
    assert_int_equal(memory_of(0), 10 * MIB);
}

static void test_a_kernel_that_claims_success_and_does_nothing_is_not_asked_for_ever(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 2);
    fake_pretends(container_path(1, 0));
    run(2, 16 * MIB, &told);
    assert_int_equal(told.result.bytes, POD_MEMORY);
    assert_true(fake_journal_count(keep("%s/memory.reclaim", container_id(0))) <= 4);
}

static void test_an_interrupted_chunk_is_tried_again(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 1);
    fake_refuse(container_path(1, 0), "memory.reclaim", EINTR, 1);
    run(1, 16 * MIB, &told);
    assert_int_equal(told.result.bytes, POD_MEMORY);
    assert_int_equal(told.result.r, 0);
}

static void test_a_group_that_refuses_is_told_of_and_passed_over(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 2);
    fake_refuse(container_path(1, 0), "memory.reclaim", EIO, 0);
    run(2, 16 * MIB, &told);
    assert_int_equal(told.result.r, -EIO);
    assert_int_equal(told.result.bytes, POD_MEMORY);
    assert_int_equal(memory_of(0), POD_MEMORY);
}

static void test_a_kernel_without_memory_reclaim_is_told_of(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 1);
    assert_int_equal(unlink(keep("%s/%s/memory.reclaim", node->tree, container_path(1, 0))), 0);
    run(1, 16 * MIB, &told);
    assert_int_equal(told.result.r, -EOPNOTSUPP);
}

static void test_a_group_that_goes_is_no_failure(void **state)
{
    struct told told;

    (void)state;
    pod_make(1, 2);
    gate_close(&fake_reclaim_gate);
    start(2, 16 * MIB, &told);
    gate_await(&fake_reclaim_gate, 1);
    fake_remove(container_path(1, 0));
    gate_open(&fake_reclaim_gate);
    AWAIT(node, told.times > 0);
    assert_int_equal(told.result.r, 0);
    assert_int_equal(told.result.bytes, POD_MEMORY);
}

static void test_stopped_it_ends_with_the_chunk_in_flight_and_says_nothing(void **state)
{
    struct reclaim_result result;
    struct told told;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    struct reclaim *reclaim = start(1, 4 * MIB, &told);
    gate_await(&fake_reclaim_gate, 1);
    assert_null(reclaim_stop(reclaim, &result));
    assert_int_equal(result.bytes, 0);
    gate_open(&fake_reclaim_gate);
    AWAIT(node, worker_pool_pending(node->reclaimers) == 0);
    assert_int_equal(told.times, 0);
    assert_int_equal(fake_journal_count("memory.reclaim"), 1);
    assert_null(reclaim_stop(NULL, &result));
}

/* More than there are workers: each waits for one chunk of each other, not for all of them. */
static void test_many_take_turns(void **state)
{
    enum { N = 4 };
    struct reclaim_config config = { .pool = node->reclaimers, .chunk_max = 4 * MIB };
    struct reclaim *reclaims[N];
    struct told told[N] = { 0 };

    (void)state;
    pod_make(1, N);
    gate_close(&fake_reclaim_gate);
    for (unsigned k = 0; k < N; k++) {
        cleanup(close_p) int fd = -1;
        config.done = on_done;
        config.userdata = &told[k];
        assert_int_equal(cgroup_open(node->root, container_path(1, k), &fd, NULL), 0);
        assert_int_equal(reclaim_start(&reclaims[k], &config, &fd, 1, NULL), 0);
    }
    gate_open(&fake_reclaim_gate);
    for (unsigned k = 0; k < N; k++)
        AWAIT(node, told[k].times > 0);
    for (unsigned k = 0; k < N; k++)
        for (unsigned other = 0; other < N; other++)
            assert_true(fake_journal_first(container_id(k)) <
                        fake_journal_last(container_id(other)));
}

/* ---- the pool ends first: nothing leaks, nothing is freed twice ---- */

static void test_the_pool_may_end_before_it_is_stopped(void **state)
{
    struct reclaim_result result;
    struct told told;

    (void)state;
    pod_make(1, 1);
    struct reclaim *reclaim = start(1, MIB, &told);
    node->reclaimers = worker_pool_close(node->reclaimers);
    assert_int_equal(told.times, 0);
    reclaim_stop(reclaim, &result);
}

static void test_the_pool_may_end_after_it_was_stopped(void **state)
{
    struct reclaim_result result;
    struct told told;

    (void)state;
    pod_make(1, 1);
    struct reclaim *reclaim = start(1, MIB, &told);
    reclaim_stop(reclaim, &result);
    node->reclaimers = worker_pool_close(node->reclaimers);
    assert_int_equal(told.times, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_everything_goes_in_chunks),
        TEST(test_no_more_is_asked_for_than_is_there),
        TEST(test_what_will_not_go_is_the_normal_end),
        TEST(test_a_kernel_that_claims_success_and_does_nothing_is_not_asked_for_ever),
        TEST(test_an_interrupted_chunk_is_tried_again),
        TEST(test_a_group_that_refuses_is_told_of_and_passed_over),
        TEST(test_a_kernel_without_memory_reclaim_is_told_of),
        TEST(test_a_group_that_goes_is_no_failure),
        TEST(test_stopped_it_ends_with_the_chunk_in_flight_and_says_nothing),
        TEST(test_many_take_turns),
        TEST(test_the_pool_may_end_before_it_is_stopped),
        TEST(test_the_pool_may_end_after_it_was_stopped),
    };

    return cmocka_run_group_tests_name("reclaim", tests, NULL, NULL);
}
