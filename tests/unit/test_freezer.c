#include "agent/freezer.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/limits.h"
#include "agent/transition.h"
#include "common/loop.h"
#include "fake_calls.h"
#include "node.h"

#define EVENTS_RUNNING "populated 1\nfrozen 0\n"
#define EVENTS_FROZEN  "populated 1\nfrozen 1\n"

/* ---- the bench ---- */

static struct node *node;

static int setup(void **state)
{
    (void)state;
    node = node_open(NULL);
    return 0;
}

/* A freeze fails after a tenth of a second. */
static int setup_hasty(void **state)
{
    struct node_options options = { .freeze_timeout_usec = 100 * USEC_PER_MSEC };

    (void)state;
    node = node_open(&options);
    return 0;
}

static int setup_no_memory(void **state)
{
    struct node_options options = { .no_memory = true };

    (void)state;
    node = node_open(&options);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    node = node_close(node);
    return 0;
}

static void assert_file(unsigned pod, unsigned container, const char *file, const char *text)
{
    assert_string_equal(fake_read(container_path(pod, container), file), text);
}

/* As it was made: runs, with its own limits, and nothing is left of us. */
static void assert_untouched(unsigned pod, unsigned n_containers)
{
    for (unsigned k = 0; k < n_containers; k++) {
        assert_file(pod, k, "cgroup.freeze", "0\n");
        assert_file(pod, k, "cgroup.events", EVENTS_RUNNING);
        assert_file(pod, k, "memory.swap.max", "0\n");
    }
    assert_false(has_record(node, pod));
    assert_null(find_pod(node, pod));
}

static void assert_frozen(unsigned pod, unsigned n_containers)
{
    for (unsigned k = 0; k < n_containers; k++) {
        assert_file(pod, k, "cgroup.freeze", "1\n");
        assert_file(pod, k, "memory.swap.max", "max\n");
    }
    assert_true(has_record(node, pod));
    assert_int_equal(find_pod(node, pod)->state, POD_FROZEN);
}

static void await_gone(unsigned pod)
{
    AWAIT(node, !find_pod(node, pod));
}

/* ---- there and back ---- */

static void test_freeze_and_thaw(void **state)
{
    struct asked frozen, thawed;

    (void)state;
    pod_make(1, 3);
    fake_write(container_path(1, 1), "memory.swap.max", "67108864");
    fake_write(container_path(1, 2), "memory.swap.max", "max");

    ask_freeze(node, 1, &frozen);
    assert_int_equal(frozen.answers, 0); /* the record is not durable yet */
    assert_int_equal(await_answer(node, &frozen), 0);
    assert_false(frozen.already);
    assert_int_equal(frozen.state, POD_FROZEN);
    assert_frozen(1, 3);
    assert_int_equal(freezer_count(node->freezer), 1);

    ask_thaw(node, 1, &thawed);
    assert_false(is_asked_to_freeze(1, 0)); /* in the call itself */
    assert_int_equal(await_answer(node, &thawed), 0);
    assert_false(thawed.already);
    await_gone(1);
    assert_file(1, 0, "memory.swap.max", "0\n");
    assert_file(1, 1, "memory.swap.max", "67108864\n");
    assert_file(1, 2, "memory.swap.max", "max\n");
    assert_false(has_record(node, 1));
    assert_int_equal(stat_of(node, STAT_FREEZES, STAT_FREEZE_OK), 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_REQUEST), 1);
    assert_int_equal(count_events(node, "\"type\":\"frozen\""), 1);
    assert_int_equal(count_events(node, "\"cause\":\"request\""), 1);
}

static void test_the_record_comes_first_and_goes_last(void **state)
{
    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze(node, 1), 0);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);

    unsigned n = fake_journal_count("");
    assert_int_equal(fake_journal_first("put "), 0);
    assert_int_equal(fake_journal_count("put "), 1);
    assert_int_equal(fake_journal_first("remove "), n - 1);
    assert_true(fake_journal_last("swap.max=max") < fake_journal_first("freeze=1"));
    assert_true(fake_journal_last("freeze=1") < fake_journal_first("freeze=0"));
    /* the app runs before its limits are back */
    assert_true(fake_journal_last("freeze=0") < fake_journal_first("swap.max=0"));
    assert_int_equal(n, 2 + 4 * 2); /* and nothing else was written */
}

static void test_freezing_twice_joins_and_then_is_already(void **state)
{
    struct asked first, second, third;

    (void)state;
    pod_make(1, 2);
    ask_freeze(node, 1, &first);
    ask_freeze(node, 1, &second);
    assert_int_equal(await_answer(node, &first), 0);
    assert_int_equal(await_answer(node, &second), 0);
    assert_false(first.already);
    assert_true(second.already);
    unsigned n = fake_journal_count("");
    assert_int_equal(fake_journal_count("freeze=1"), 2);

    ask_freeze(node, 1, &third);
    assert_int_equal(third.answers, 1); /* at once */
    assert_int_equal(third.r, 0);
    assert_true(third.already);
    assert_int_equal(third.state, POD_FROZEN);
    assert_int_equal(fake_journal_count(""), n);
}

static void test_thawing_twice_is_already_and_writes_nothing(void **state)
{
    struct asked second, third;

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    assert_int_equal(thaw(node, 1), 0);
    ask_thaw(node, 1, &second); /* joins, or comes too late */
    assert_int_equal(await_answer(node, &second), 0);
    await_gone(1);
    unsigned n = fake_journal_count("");
    ask_thaw(node, 1, &third);
    assert_int_equal(third.answers, 1);
    assert_int_equal(third.r, 0);
    assert_true(third.already);
    assert_int_equal(fake_journal_count(""), n);
}

static void test_the_original_is_captured_once(void **state)
{
    (void)state;
    pod_make(1, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(freeze(node, 1), 0);
        assert_int_equal(freeze(node, 1), 0);
        assert_string_equal(find_pod(node, 1)->cgroups.record.containers[0].groups[0].swap_max,
                            "0");
        assert_int_equal(thaw(node, 1), 0);
        await_gone(1);
    }
    assert_untouched(1, 1);
}

static void test_groups_below_a_container_get_their_own_limits_back(void **state)
{
    const char *nested = keep("%s/container", container_path(1, 0));
    const char *deep = keep("%s/system.slice", nested);

    (void)state;
    pod_make(1, 1);
    fake_group(nested, "4096", 0);
    fake_group(deep, "8192", 0);

    assert_int_equal(freeze(node, 1), 0);
    assert_string_equal(fake_read(nested, "memory.swap.max"), "max\n");
    assert_string_equal(fake_read(deep, "memory.swap.max"), "max\n");
    assert_int_equal(fake_journal_count("freeze=1"), 1); /* the tree below follows by itself */
    assert_int_equal(thaw(node, 1), 0);
    assert_string_equal(fake_read(nested, "memory.swap.max"), "4096\n");
    assert_string_equal(fake_read(deep, "memory.swap.max"), "8192\n");
}

static void test_without_a_memory_controller_pods_are_frozen_all_the_same(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_int_equal(asked.reclaim, RECLAIM_STOPPED);
    assert_string_equal(asked.reclaim_reason, "no_memory_controller");
    assert_true(is_asked_to_freeze(1, 1));
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_false(is_asked_to_freeze(1, 1));
    assert_int_equal(fake_journal_count("memory."), 0);
}

/* ---- thaw always wins ---- */

static void test_thaw_while_the_record_is_being_written(void **state)
{
    struct asked frozen, thawed;

    (void)state;
    pod_make(1, 2);
    gate_close(&fake_disk_gate);
    ask_freeze(node, 1, &frozen);
    gate_await(&fake_disk_gate, 1);
    ask_thaw(node, 1, &thawed);
    /* It runs, so that nobody is kept waiting for the disk. */
    assert_int_equal(await_answer(node, &thawed), 0);
    assert_int_equal(await_answer(node, &frozen), FREEZER_E_CONFLICT);
    gate_open(&fake_disk_gate);
    await_gone(1);
    assert_untouched(1, 2);
    assert_int_equal(fake_journal_count("kubepods"), 0);
    assert_int_equal(fake_journal_last("remove "), fake_journal_count("") - 1);
}

static void test_thaw_while_freezing(void **state)
{
    struct asked frozen, thawed;

    (void)state;
    pod_make(1, 2);
    fake_never_freezes(container_path(1, 1));
    ask_freeze(node, 1, &frozen);
    AWAIT(node, is_asked_to_freeze(1, 1));
    assert_int_equal(find_pod(node, 1)->state, POD_FREEZING);
    ask_thaw(node, 1, &thawed);
    assert_false(is_asked_to_freeze(1, 0));
    assert_false(is_asked_to_freeze(1, 1));
    assert_int_equal(await_answer(node, &thawed), 0);
    assert_int_equal(await_answer(node, &frozen), FREEZER_E_CONFLICT);
    await_gone(1);
    assert_untouched(1, 2);
    assert_int_equal(stat_of(node, STAT_FREEZES, STAT_FREEZE_REFUSED), 1);
}

static void test_thaw_during_reclaim(void **state)
{
    struct asked frozen, thawed;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &frozen);
    AWAIT(node, find_pod(node, 1)->state == POD_FROZEN);
    gate_await(&fake_reclaim_gate, 1);
    assert_int_equal(frozen.answers, 0);

    ask_thaw(node, 1, &thawed);
    assert_false(is_asked_to_freeze(1, 0));
    assert_int_equal(await_answer(node, &thawed), 0);
    /* It was frozen, so this is no failure to who asked for it. */
    assert_int_equal(await_answer(node, &frozen), 0);
    assert_int_equal(frozen.reclaim, RECLAIM_STOPPED);
    assert_string_equal(frozen.reclaim_reason, "thawed");
    await_gone(1);
    gate_open(&fake_reclaim_gate);
    AWAIT(node, worker_pool_pending(node->reclaimers) == 0);
    assert_int_equal(fake_journal_count("memory.reclaim"), 1); /* the one that was on its way */
}

static void test_a_thaw_does_not_wait_for_the_reclaim_of_others(void **state)
{
    enum { N = 32 };
    struct asked frozen[N + 1], thawed;
    unsigned passed = fake_reclaim_gate.passed;

    (void)state;
    gate_close(&fake_reclaim_gate);
    for (unsigned i = 0; i <= N; i++) {
        pod_make(i, 1);
        ask_freeze_with(node, i, RECLAIM_WAIT, 0, &frozen[i]);
    }
    for (unsigned i = 0; i <= N; i++)
        AWAIT(node, find_pod(node, i)->reclaim_state == RECLAIM_RUNNING);

    uint64_t before = loop_now_usec();
    ask_thaw(node, N, &thawed);
    assert_int_equal(await_answer(node, &thawed), 0);
    assert_true(loop_now_usec() - before < 10 * USEC_PER_SEC);
    await_gone(N);
    assert_untouched(N, 1);
    assert_int_equal(fake_reclaim_gate.passed, passed); /* all of them are still at it */
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(frozen[i].answers, 0);

    gate_open(&fake_reclaim_gate);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(await_answer(node, &frozen[i]), 0);
}

static void test_thaw_with_a_full_disk(void **state)
{
    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    fake_disk_refuse(FAKE_DISK_PUT, ENOSPC, 0);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_untouched(1, 1);
}

static void test_a_thaw_is_answered_though_the_record_cannot_be_removed(void **state)
{
    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    fake_disk_refuse(FAKE_DISK_REMOVE, EROFS, 3);
    assert_int_equal(thaw(node, 1), 0);
    assert_false(is_asked_to_freeze(1, 0));
    await_gone(1); /* it is tried again */
    assert_untouched(1, 1);
    assert_int_equal(fake_journal_count("remove "), 4);
    assert_int_equal(stat_of(node, STAT_STORE_ERRORS, 0), 1); /* said once */
}

static void test_a_thaw_that_fails_at_first_is_tried_again(void **state)
{
    struct asked thawed;

    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_refuse(container_path(1, 0), "cgroup.freeze", EIO, 1);
    ask_thaw(node, 1, &thawed);
    assert_true(is_asked_to_freeze(1, 0));
    assert_false(is_asked_to_freeze(1, 1)); /* the others do not wait for it */
    assert_int_equal(await_answer(node, &thawed), 0);
    await_gone(1);
    assert_untouched(1, 2);
}

static void test_a_thaw_that_keeps_failing_says_so_and_is_tried_until_it_works(void **state)
{
    struct asked first, second;

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    fake_refuse(container_path(1, 0), "cgroup.freeze", EIO, 0);
    ask_thaw(node, 1, &first);
    assert_true(await_answer(node, &first) < 0);
    assert_non_null(strstr(first.sentence, "cgroup.freeze"));
    assert_true(has_record(node, 1));
    AWAIT(node, fake_journal_count("freeze=0") > 4);

    fake_behave();
    ask_thaw(node, 1, &second);
    assert_int_equal(await_answer(node, &second), 0);
    await_gone(1);
    assert_untouched(1, 1);
}

/* The cause that counts is the one that keeps the app from running. */
static void test_of_two_failures_the_thaw_is_told(void **state)
{
    struct asked thawed;

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    fake_refuse(container_path(1, 0), "cgroup.freeze", EIO, 0);
    fake_refuse(container_path(1, 0), "memory.swap.max", EPERM, 0);
    ask_thaw(node, 1, &thawed);
    assert_true(await_answer(node, &thawed) < 0);
    assert_non_null(strstr(thawed.sentence, "cgroup.freeze"));
    fake_behave();
    await_gone(1);
}

static void test_a_limit_that_cannot_be_restored_keeps_the_record_not_the_app(void **state)
{
    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    fake_refuse(container_path(1, 0), "memory.swap.max", EIO, 3);
    assert_int_equal(thaw(node, 1), 0);
    assert_false(is_asked_to_freeze(1, 0));
    await_gone(1);
    assert_untouched(1, 1);
}

/* ---- freezes that fail ---- */

static void test_what_never_freezes_is_rolled_back_in_time(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 3);
    fake_never_freezes(container_path(1, 2));
    uint64_t before = loop_now_usec();
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), FREEZER_E_TIMEOUT);
    uint64_t took = loop_now_usec() - before;
    assert_true(took >= 100 * USEC_PER_MSEC);
    assert_true(took < 10 * USEC_PER_SEC); /* a machine may be busy */
    await_gone(1);
    assert_untouched(1, 3);
    assert_int_equal(stat_of(node, STAT_FREEZES, STAT_FREEZE_TIMEOUT), 1);
}

static void test_one_container_that_cannot_be_frozen_rolls_all_back(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 3);
    fake_refuse(container_path(1, 1), "cgroup.freeze", EPERM, 1);
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), -EPERM);
    assert_non_null(strstr(asked.sentence, container_id(1)));
    await_gone(1);
    assert_untouched(1, 3);
    assert_int_equal(stat_of(node, STAT_FREEZES, STAT_FREEZE_ERROR), 1);
}

static void test_one_limit_that_cannot_be_lifted_rolls_all_back(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 3);
    fake_refuse(container_path(1, 1), "memory.swap.max", EPERM, 1);
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), -EPERM);
    await_gone(1);
    assert_untouched(1, 3);
    assert_int_equal(fake_journal_count("freeze=1"), 0);
}

static void test_without_a_record_nothing_is_touched(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    fake_disk_refuse(FAKE_DISK_PUT, ENOSPC, 0);
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), -ENOSPC);
    await_gone(1);
    assert_untouched(1, 1);
    assert_int_equal(fake_journal_count("kubepods"), 0);
}

/* Runs a freeze of pod 1 with `meanwhile` while its record is being written. */
static int freeze_and_meanwhile(void (*meanwhile)(void), struct asked *asked)
{
    gate_close(&fake_disk_gate);
    ask_freeze(node, 1, asked);
    gate_await(&fake_disk_gate, 1);
    meanwhile();
    gate_open(&fake_disk_gate);
    int r = await_answer(node, asked);
    await_gone(1);
    return r;
}

static void remove_second(void)
{
    fake_remove(container_path(1, 1));
}

static void test_a_container_that_goes_in_between(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 3);
    assert_int_equal(freeze_and_meanwhile(remove_second, &asked), FREEZER_E_CONFLICT);
    assert_untouched(1, 1);
    assert_file(1, 2, "cgroup.freeze", "0\n");
    assert_file(1, 2, "memory.swap.max", "0\n");
}

static void empty_second(void)
{
    fake_populate(container_path(1, 1), false);
}

static void test_a_container_that_ends_in_between(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze_and_meanwhile(empty_second, &asked), FREEZER_E_CONFLICT);
    assert_untouched(1, 1);
    assert_file(1, 1, "cgroup.freeze", "0\n"); /* who knows what will run there */
}

static void start_third(void)
{
    fake_group(container_path(1, 2), "0", 0);
}

static void test_a_container_that_comes_in_between(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze_and_meanwhile(start_third, &asked), FREEZER_E_CONFLICT);
    assert_untouched(1, 3);
}

static void remove_pod(void)
{
    fake_remove(pod_path(1));
}

static void test_a_pod_that_goes_in_between(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze_and_meanwhile(remove_pod, &asked), FREEZER_E_CONFLICT);
    assert_false(has_record(node, 1));
}

static void replace_second(void)
{
    fake_replace(container_path(1, 1));
}

/* What has the name of a recorded group and is another is none of ours. */
static void test_a_container_that_is_made_anew_in_between(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze_and_meanwhile(replace_second, &asked), FREEZER_E_CONFLICT);
    assert_untouched(1, 1);
    assert_file(1, 1, "cgroup.freeze", "0\n");
    assert_file(1, 1, "memory.swap.max", "max\n");
}

/* ---- refusals ---- */

static void test_a_pod_that_is_not_there(void **state)
{
    (void)state;
    assert_int_equal(freeze(node, 9), FREEZER_E_NOT_FOUND);
    assert_int_equal(thaw(node, 9), FREEZER_E_NOT_FOUND);
}

/* A kubelet that started after us: its root is searched for when a pod is not found. */
static void test_a_root_that_comes_later_is_found(void **state)
{
    const char *path = keep("k3s/kubepods/pod%s/%s", nth_uid(1), container_id(0));

    (void)state;
    fake_group(path, "0", 0);
    assert_int_equal(freeze(node, 1), 0);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
}

static void test_a_pod_without_containers_is_refused(void **state)
{
    struct asked asked;

    (void)state;
    fake_group(pod_path(1), "max", 0);
    ask_freeze(node, 1, &asked);
    assert_int_equal(asked.r, FREEZER_E_REFUSED);
    assert_string_equal(asked.waiter.reason, "no_containers");
    assert_int_equal(thaw(node, 1), 0); /* nothing there is frozen */
}

static void test_the_agents_own_pod_is_refused(void **state)
{
    struct asked asked;
    char pid[16];

    (void)state;
    pod_make(1, 1);
    snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    fake_put(container_path(1, 0), "cgroup.procs", pid);
    ask_freeze(node, 1, &asked);
    assert_int_equal(asked.r, FREEZER_E_REFUSED);
    assert_string_equal(asked.waiter.reason, "own_pod");
    assert_untouched(1, 1);
}

static void assert_foreign(void)
{
    unsigned n = fake_journal_count("");

    assert_int_equal(freeze(node, 1), FREEZER_E_CONFLICT);
    assert_int_equal(thaw(node, 1), FREEZER_E_CONFLICT);
    assert_int_equal(fake_journal_count(""), n);
}

static void test_what_somebody_else_froze_is_left_alone(void **state)
{
    (void)state;
    pod_make(1, 2);
    fake_write(container_path(1, 1), "cgroup.freeze", "1");
    assert_foreign();
    fake_write(container_path(1, 1), "cgroup.freeze", "0");
    assert_int_equal(freeze(node, 1), 0);
}

static void test_what_is_frozen_from_above_is_left_alone(void **state)
{
    static const char *const above[] = { "kubepods/burstable", "kubepods" };

    (void)state;
    pod_make(1, 2);
    fake_write(pod_path(1), "cgroup.freeze", "1");
    assert_foreign();
    fake_write(pod_path(1), "cgroup.freeze", "0");
    for (size_t i = 0; i < ARRAY_SIZE(above); i++) {
        fake_write(above[i], "cgroup.freeze", "1");
        assert_foreign();
        fake_write(above[i], "cgroup.freeze", "0");
    }
    assert_int_equal(freeze(node, 1), 0);
}

/* A thawed group says "frozen 1" until the first of its tasks has run; nobody has frozen it. */
static void test_what_is_not_yet_awake_after_a_thaw_is_nobody_elses(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    assert_int_equal(freeze(node, 1), 0);
    fake_lingers(container_path(1, 0));
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_file(1, 0, "cgroup.events", EVENTS_FROZEN);

    ask_thaw(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_true(asked.already);
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_false(asked.already);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    fake_behave();
    assert_untouched(1, 2);
}

/* ---- generations ---- */

static int freeze_as(unsigned pod, uint64_t generation)
{
    struct asked asked;

    ask_freeze_with(node, pod, RECLAIM_OFF, generation, &asked);
    return await_answer(node, &asked);
}

static void test_a_stale_freeze_is_refused(void **state)
{
    (void)state;
    pod_make(1, 1);
    assert_int_equal(freeze_as(1, 5), 0);
    assert_int_equal(freeze_as(1, 4), FREEZER_E_STALE);
    assert_int_equal(freeze_as(1, 5), 0);
    assert_int_equal(freeze_as(1, 0), 0); /* who has none is not fenced */
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_int_equal(freeze_as(1, 4), FREEZER_E_STALE); /* though it runs */
    assert_untouched(1, 1);
    assert_int_equal(freeze_as(1, 6), 0);
}

static void test_a_thaw_is_never_stale_and_counts(void **state)
{
    struct asked asked = { 0 };

    (void)state;
    pod_make(1, 1);
    assert_int_equal(freeze_as(1, 5), 0);
    ask_thaw(node, 1, &asked); /* of no generation */
    assert_int_equal(await_answer(node, &asked), 0);
    await_gone(1);
    asked.answers = 0;
    freezer_thaw(node->freezer, nth_uid(1), 9, &asked.waiter);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_int_equal(freeze_as(1, 8), FREEZER_E_STALE);
    assert_int_equal(freeze_as(1, 9), 0);
}

/* ---- limits ---- */

static void test_so_many_may_wait_for_a_pod(void **state)
{
    struct asked asked[POD_WAITERS_MAX + 1];

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_disk_gate);
    for (unsigned i = 0; i <= POD_WAITERS_MAX; i++)
        ask_freeze(node, 1, &asked[i]);
    assert_int_equal(asked[POD_WAITERS_MAX].answers, 1);
    assert_int_equal(asked[POD_WAITERS_MAX].r, FREEZER_E_BUSY);
    assert_int_equal(asked[POD_WAITERS_MAX - 1].answers, 0);
    gate_open(&fake_disk_gate);
    for (unsigned i = 0; i < POD_WAITERS_MAX; i++)
        assert_int_equal(await_answer(node, &asked[i]), 0);
}

/* However many wait for the freeze: who thaws is not sent away. */
static void test_a_thaw_finds_room_among_many_who_wait(void **state)
{
    struct asked asked[POD_WAITERS_MAX], thawed;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    for (unsigned i = 0; i < POD_WAITERS_MAX; i++)
        ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &asked[i]);
    AWAIT(node, find_pod(node, 1)->state == POD_FROZEN);
    ask_thaw(node, 1, &thawed);
    assert_false(is_asked_to_freeze(1, 0));
    assert_int_equal(await_answer(node, &thawed), 0);
    for (unsigned i = 0; i < POD_WAITERS_MAX; i++)
        assert_int_equal(await_answer(node, &asked[i]), 0);
}

static void fill_table(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct pod_cgroups cgroups = { .pod_fd = -1 };
        strcpy(cgroups.record.pod_uid, nth_uid(1000 + i));
        struct pod *pod = freezer_insert(node->freezer, &cgroups);
        assert_non_null(pod);
        pod->state = POD_RUNNING;
    }
}

static void test_so_many_pods_may_be_frozen(void **state)
{
    (void)state;
    pod_make(1, 1);
    pod_make(2, 1);
    fill_table(PODS_MAX - 1);
    assert_int_equal(freeze(node, 1), 0);
    assert_int_equal(freeze(node, 2), FREEZER_E_BUSY);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_int_equal(freeze(node, 2), 0);
}

/* ---- reclaim ---- */

static void test_who_waits_for_reclaim_is_answered_at_its_end(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_int_equal(asked.reclaim, RECLAIM_DONE);
    assert_file(1, 0, "memory.current", "0\n");
    assert_file(1, 1, "memory.current", "0\n");
    assert_int_equal(find_pod(node, 1)->reclaimed.bytes, 2 * POD_MEMORY);
    assert_int_equal(stat_of(node, STAT_RECLAIMED_BYTES, 0), 2 * POD_MEMORY);
    assert_int_equal(count_events(node, "\"type\":\"reclaimed\""), 1);
}

static void test_a_reclaim_that_fails_is_no_failure_of_the_freeze(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    fake_refuse(container_path(1, 0), "memory.reclaim", EIO, 0);
    ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_int_equal(asked.state, POD_FROZEN);
    assert_int_equal(asked.reclaim, RECLAIM_STOPPED);
    assert_string_equal(asked.reclaim_reason, "error");
}

static void test_reclaim_in_the_background_keeps_nobody_waiting(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    ask_freeze_with(node, 1, RECLAIM_BACKGROUND, 0, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_int_equal(asked.reclaim, RECLAIM_RUNNING);
    gate_open(&fake_reclaim_gate);
    AWAIT(node, find_pod(node, 1)->reclaim_state == RECLAIM_DONE);
}

static void test_who_joins_during_reclaim_waits_only_if_he_asks_to(void **state)
{
    struct asked first, waits, does_not;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    ask_freeze_with(node, 1, RECLAIM_BACKGROUND, 0, &first);
    assert_int_equal(await_answer(node, &first), 0);
    ask_freeze_with(node, 1, RECLAIM_WAIT, 0, &waits);
    ask_freeze_with(node, 1, RECLAIM_BACKGROUND, 0, &does_not);
    assert_int_equal(waits.answers, 0);
    assert_int_equal(does_not.answers, 1);
    gate_open(&fake_reclaim_gate);
    assert_int_equal(await_answer(node, &waits), 0);
    assert_true(waits.already);
    assert_int_equal(waits.reclaim, RECLAIM_DONE);
}

/* ---- what others do ---- */

static void test_a_limit_that_is_set_back_is_healed(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_write(container_path(1, 1), "memory.swap.max", "0");
    AWAIT(node, stat_of(node, STAT_DRIFT, STAT_DRIFT_SWAP_MAX) == 1);
    assert_frozen(1, 2);
    assert_int_equal(count_events(node, "\"type\":\"drift\""), 1);
    assert_int_equal(thaw(node, 1), 0);
    await_gone(1);
    assert_untouched(1, 2);
}

static void set_back(unsigned container, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        double healed = stat_of(node, STAT_DRIFT, STAT_DRIFT_SWAP_MAX);
        fake_write(container_path(1, container), "memory.swap.max", "0");
        AWAIT(node, stat_of(node, STAT_DRIFT, STAT_DRIFT_SWAP_MAX) > healed);
        assert_file(1, container, "memory.swap.max", "max\n");
    }
}

/* Somebody who insists is not fought for ever, and not at the cost of the other containers. */
static void test_so_often_a_limit_is_healed(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    set_back(0, DRIFT_HEALS_MAX);
    fake_write(container_path(1, 0), "memory.swap.max", "0");
    set_back(1, DRIFT_HEALS_MAX); /* in whose wake the first was looked at, too */
    assert_file(1, 0, "memory.swap.max", "0\n");
    assert_int_equal(stat_of(node, STAT_DRIFT, STAT_DRIFT_SWAP_MAX), 2 * DRIFT_HEALS_MAX);
    assert_int_equal(find_pod(node, 1)->state, POD_FROZEN);
}

static void test_a_container_that_somebody_thaws_takes_the_rest_with_it(void **state)
{
    (void)state;
    pod_make(1, 3);
    freeze(node, 1);
    fake_write(container_path(1, 1), "cgroup.freeze", "0");
    await_gone(1);
    assert_untouched(1, 3);
    assert_int_equal(stat_of(node, STAT_DRIFT, STAT_DRIFT_THAWED), 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_DRIFT), 1);
}

/* The cgroup is the truth, also in the moment before the notification of it arrives. */
static void test_a_freeze_right_after_drift_freezes_again(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_write(container_path(1, 1), "cgroup.freeze", "0");
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_false(asked.already);
    assert_frozen(1, 2);
}

static void test_a_container_that_starts_thaws_the_pod(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_group(container_path(1, 2), "0", 0);
    await_gone(1);
    assert_untouched(1, 3);
    assert_int_equal(stat_of(node, STAT_DRIFT, STAT_DRIFT_CONTAINER), 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_CHANGED), 1);
}

static void test_a_container_that_goes_thaws_the_rest(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_remove(container_path(1, 1));
    await_gone(1);
    assert_untouched(1, 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_CHANGED), 1);
}

static void test_a_pod_that_goes_is_forgotten(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_remove(pod_path(1));
    await_gone(1);
    assert_false(has_record(node, 1));
    assert_int_equal(count_events(node, "\"type\":\"gone\""), 1);
    assert_int_equal(count_events(node, "\"type\":\"thawed\""), 0);
}

/* All of its processes were killed, its groups are still there: what starts in them next must not
 * be born frozen, or with limits that are ours. */
static void test_a_pod_whose_processes_have_ended_leaves_nothing_frozen(void **state)
{
    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    fake_populate(container_path(1, 0), false);
    fake_populate(container_path(1, 1), false);
    await_gone(1);
    for (unsigned k = 0; k < 2; k++) {
        assert_file(1, k, "cgroup.freeze", "0\n");
        assert_file(1, k, "memory.swap.max", "0\n");
    }
    assert_false(has_record(node, 1));
    assert_int_equal(count_events(node, "\"type\":\"gone\""), 1);
}

/* ---- packets ---- */

static void wake(unsigned i)
{
    struct trigger_event packet = { .kind = "connection",
                                    .source = "192.0.2.7",
                                    .source_port = 40000,
                                    .local_port = 8080,
                                    .seen_usec = loop_now_usec() };

    freezer_wake(find_pod(node, i), &packet);
}

static void freeze_in_group(unsigned i, const char *group)
{
    struct asked asked;

    pod_make(i, 1);
    ask_freeze_in_group(node, i, group, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
}

static void test_a_packet_wakes_the_pod_and_its_group(void **state)
{
    static const char *const groups[] = { "a", "a", "b", "" };

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        freeze_in_group(i, groups[i]);
    wake(0);
    assert_false(is_asked_to_freeze(0, 0)); /* in the call itself */
    assert_false(is_asked_to_freeze(1, 0));
    assert_true(is_asked_to_freeze(2, 0));
    assert_true(is_asked_to_freeze(3, 0));
    wake(0); /* the next packet */
    await_gone(0);
    await_gone(1);
    assert_untouched(0, 1);
    assert_untouched(1, 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_PACKET), 1);
    assert_int_equal(stat_of(node, STAT_THAWS, THAW_GROUP), 1);
    assert_int_equal(count_events(node, "\"type\":\"woken\""), 1);
    assert_int_equal(count_events(node, "192.0.2.7"), 1);
    wake(3); /* of no group */
    await_gone(3);
    assert_true(is_asked_to_freeze(2, 0));
}

static void test_a_packet_during_the_freeze_wins(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_disk_gate);
    ask_freeze(node, 1, &asked);
    gate_await(&fake_disk_gate, 1);
    wake(1);
    gate_open(&fake_disk_gate);
    assert_int_equal(await_answer(node, &asked), FREEZER_E_CONFLICT);
    assert_non_null(strstr(asked.sentence, "192.0.2.7"));
    await_gone(1);
    assert_untouched(1, 1);
}

static void test_so_often_packets_may_wake_a_pod(void **state)
{
    struct node_options options = { .wakes_max = 3 };
    struct asked asked;

    (void)state;
    node = node_close(node);
    node = node_open(&options);
    pod_make(1, 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(freeze(node, 1), 0);
        wake(1);
        await_gone(1);
    }
    ask_freeze(node, 1, &asked);
    assert_int_equal(asked.r, FREEZER_E_REFUSED);
    assert_string_equal(asked.waiter.reason, "wake_limit");
    assert_untouched(1, 1);
}

/* ---- freeze after thaw ---- */

static void test_a_freeze_while_the_record_is_being_removed_waits_and_begins_anew(void **state)
{
    struct asked thawed, again;

    (void)state;
    pod_make(1, 2);
    freeze(node, 1);
    gate_close(&fake_disk_gate);
    ask_thaw(node, 1, &thawed);
    gate_await(&fake_disk_gate, 1);
    ask_freeze(node, 1, &again);
    assert_int_equal(await_answer(node, &thawed), 0);
    assert_int_equal(again.answers, 0);
    gate_open(&fake_disk_gate);
    assert_int_equal(await_answer(node, &again), 0);
    assert_false(again.already);
    assert_frozen(1, 2);
    assert_int_equal(fake_journal_count("put "), 2);
    assert_true(fake_journal_first("remove ") < fake_journal_last("put "));
}

static void test_a_thaw_cancels_a_freeze_that_waits_to_begin(void **state)
{
    struct asked first, again, last;

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    gate_close(&fake_disk_gate);
    ask_thaw(node, 1, &first);
    ask_freeze(node, 1, &again);
    ask_thaw(node, 1, &last);
    assert_int_equal(again.answers, 1);
    assert_int_equal(again.r, FREEZER_E_CONFLICT);
    gate_open(&fake_disk_gate);
    assert_int_equal(await_answer(node, &first), 0);
    assert_int_equal(await_answer(node, &last), 0);
    await_gone(1);
    assert_untouched(1, 1);
}

/* ---- waiters ---- */

static void test_who_is_forgotten_is_not_called(void **state)
{
    struct asked asked[3];

    (void)state;
    pod_make(1, 1);
    for (unsigned i = 0; i < 3; i++)
        ask_freeze(node, 1, &asked[i]);
    freezer_forget(&asked[1].waiter);
    freezer_forget(&asked[1].waiter); /* harmless */
    assert_int_equal(await_answer(node, &asked[2]), 0);
    assert_int_equal(asked[0].answers, 1);
    assert_int_equal(asked[1].answers, 0);
}

/* A waiter that asks for the opposite as soon as it is told. */
struct contrarian {
    struct freezer_waiter waiter;
    struct asked asked;
    bool thaws;
};

static void do_the_opposite(struct freezer_waiter *waiter, int r, bool already,
                            const struct pod *pod, const struct error *error)
{
    struct contrarian *contrarian = container_of(waiter, struct contrarian, waiter);

    (void)already, (void)pod, (void)error;
    assert_int_equal(r, 0);
    if (contrarian->thaws)
        ask_thaw(node, 1, &contrarian->asked);
    else
        ask_freeze(node, 1, &contrarian->asked);
}

static void test_a_waiter_may_thaw_when_it_hears_of_the_freeze(void **state)
{
    struct contrarian contrarian = { .waiter.done = do_the_opposite, .thaws = true };
    struct freeze_request request = { .reclaim = RECLAIM_OFF };

    (void)state;
    pod_make(1, 1);
    strcpy(request.pod_uid, nth_uid(1));
    freezer_freeze(node->freezer, &request, &contrarian.waiter);
    assert_int_equal(await_answer(node, &contrarian.asked), 0);
    await_gone(1);
    assert_untouched(1, 1);
}

static void test_a_waiter_may_freeze_when_it_hears_of_the_thaw(void **state)
{
    struct contrarian contrarian = { .waiter.done = do_the_opposite };

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    freezer_thaw(node->freezer, nth_uid(1), 0, &contrarian.waiter);
    assert_int_equal(await_answer(node, &contrarian.asked), 0);
    assert_false(contrarian.asked.already);
    assert_frozen(1, 1);
}

static void test_a_waiter_may_thaw_when_it_hears_of_the_thaw(void **state)
{
    struct contrarian contrarian = { .waiter.done = do_the_opposite, .thaws = true };

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    freezer_thaw(node->freezer, nth_uid(1), 0, &contrarian.waiter);
    assert_int_equal(await_answer(node, &contrarian.asked), 0);
    await_gone(1);
    assert_untouched(1, 1);
}

/* ---- the end ---- */

static void test_stopping_in_the_middle_leaves_what_is_frozen_frozen(void **state)
{
    struct asked reclaimed[4], frozen;

    (void)state;
    gate_close(&fake_reclaim_gate);
    for (unsigned i = 0; i < 4; i++) {
        pod_make(i, 1);
        ask_freeze_with(node, i, RECLAIM_WAIT, 0, &reclaimed[i]);
        AWAIT(node, find_pod(node, i)->state == POD_FROZEN);
    }
    gate_await(&fake_reclaim_gate, 2);
    fake_never_freezes(container_path(9, 0));
    pod_make(9, 1);
    ask_freeze(node, 9, &frozen);
    gate_open(&fake_reclaim_gate);
    node_stop(node);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(is_asked_to_freeze(i, 0));
        assert_true(has_record(node, i));
    }
}

static void test_stopping_with_pods_that_packets_would_wake(void **state)
{
    static const struct waker_config waker = { .wanted = WAKER_AUTO };
    struct node_options options = { .waker = &waker };

    (void)state;
    node = node_close(node);
    node = node_open(&options);
    if (waker_means(freezer_waker(node->freezer)) != TRIGGER_MEANS_BPF)
        skip();
    for (unsigned i = 0; i < 3; i++) {
        pod_make(i, 1);
        assert_int_equal(freeze(node, i), 0);
    }
    gate_close(&fake_disk_gate);
    assert_int_equal(thaw(node, 0), 0); /* disarmed by a job that is in the queue still */
    gate_await(&fake_disk_gate, 1);
    gate_open(&fake_disk_gate);
    node_stop(node);
    assert_true(is_asked_to_freeze(1, 0));
}

static void test_gauges_count_pods_by_state(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    pod_make(2, 1);
    freeze(node, 1);
    fake_never_freezes(container_path(2, 0));
    ask_freeze(node, 2, &asked);
    freezer_gauge(node->freezer);
    assert_int_equal(stat_of(node, STAT_PODS, STAT_PODS_FROZEN), 1);
    assert_int_equal(stat_of(node, STAT_PODS, STAT_PODS_FREEZING), 1);
    assert_int_equal(stat_of(node, STAT_PODS, STAT_PODS_THAWING), 0);
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_HASTY(name) cmocka_unit_test_setup_teardown(name, setup_hasty, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_freeze_and_thaw),
        TEST(test_the_record_comes_first_and_goes_last),
        TEST(test_freezing_twice_joins_and_then_is_already),
        TEST(test_thawing_twice_is_already_and_writes_nothing),
        TEST(test_the_original_is_captured_once),
        TEST(test_groups_below_a_container_get_their_own_limits_back),
        cmocka_unit_test_setup_teardown(
            test_without_a_memory_controller_pods_are_frozen_all_the_same, setup_no_memory,
            teardown),
        TEST(test_thaw_while_the_record_is_being_written),
        TEST(test_thaw_while_freezing),
        TEST(test_thaw_during_reclaim),
        TEST(test_a_thaw_does_not_wait_for_the_reclaim_of_others),
        TEST(test_thaw_with_a_full_disk),
        TEST(test_a_thaw_is_answered_though_the_record_cannot_be_removed),
        TEST(test_a_thaw_that_fails_at_first_is_tried_again),
        TEST(test_a_thaw_that_keeps_failing_says_so_and_is_tried_until_it_works),
        TEST(test_of_two_failures_the_thaw_is_told),
        TEST(test_a_limit_that_cannot_be_restored_keeps_the_record_not_the_app),
        TEST_HASTY(test_what_never_freezes_is_rolled_back_in_time),
        TEST(test_one_container_that_cannot_be_frozen_rolls_all_back),
        TEST(test_one_limit_that_cannot_be_lifted_rolls_all_back),
        TEST(test_without_a_record_nothing_is_touched),
        TEST(test_a_container_that_goes_in_between),
        TEST(test_a_container_that_ends_in_between),
        TEST(test_a_container_that_comes_in_between),
        TEST(test_a_pod_that_goes_in_between),
        TEST(test_a_container_that_is_made_anew_in_between),
        TEST(test_a_pod_that_is_not_there),
        TEST(test_a_root_that_comes_later_is_found),
        TEST(test_a_pod_without_containers_is_refused),
        TEST(test_the_agents_own_pod_is_refused),
        TEST(test_what_somebody_else_froze_is_left_alone),
        TEST(test_what_is_frozen_from_above_is_left_alone),
        TEST(test_what_is_not_yet_awake_after_a_thaw_is_nobody_elses),
        TEST(test_a_stale_freeze_is_refused),
        TEST(test_a_thaw_is_never_stale_and_counts),
        TEST(test_so_many_may_wait_for_a_pod),
        TEST(test_a_thaw_finds_room_among_many_who_wait),
        TEST(test_so_many_pods_may_be_frozen),
        TEST(test_who_waits_for_reclaim_is_answered_at_its_end),
        TEST(test_a_reclaim_that_fails_is_no_failure_of_the_freeze),
        TEST(test_reclaim_in_the_background_keeps_nobody_waiting),
        TEST(test_who_joins_during_reclaim_waits_only_if_he_asks_to),
        TEST(test_a_limit_that_is_set_back_is_healed),
        TEST(test_so_often_a_limit_is_healed),
        TEST(test_a_container_that_somebody_thaws_takes_the_rest_with_it),
        TEST(test_a_freeze_right_after_drift_freezes_again),
        TEST(test_a_container_that_starts_thaws_the_pod),
        TEST(test_a_container_that_goes_thaws_the_rest),
        TEST(test_a_pod_that_goes_is_forgotten),
        TEST(test_a_pod_whose_processes_have_ended_leaves_nothing_frozen),
        TEST(test_a_packet_wakes_the_pod_and_its_group),
        TEST(test_a_packet_during_the_freeze_wins),
        TEST(test_so_often_packets_may_wake_a_pod),
        TEST(test_a_freeze_while_the_record_is_being_removed_waits_and_begins_anew),
        TEST(test_a_thaw_cancels_a_freeze_that_waits_to_begin),
        TEST(test_who_is_forgotten_is_not_called),
        TEST(test_a_waiter_may_thaw_when_it_hears_of_the_freeze),
        TEST(test_a_waiter_may_freeze_when_it_hears_of_the_thaw),
        TEST(test_a_waiter_may_thaw_when_it_hears_of_the_thaw),
        TEST(test_stopping_in_the_middle_leaves_what_is_frozen_frozen),
        TEST(test_stopping_with_pods_that_packets_would_wake),
        TEST(test_gauges_count_pods_by_state),
    };

    return cmocka_run_group_tests_name("freezer", tests, NULL, NULL);
}
