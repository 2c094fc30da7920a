#include "agent/reconcile.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>

#include <cmocka.h>

#include "fake_calls.h"
#include "node.h"

/* ---- a disk that cannot be read ---- */

static const char *unreadable; /* a name in the state directory, */
static unsigned reads_fail;    /* and how often */

int __real_file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_len,
                     struct error *error);
int __wrap_file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_len,
                     struct error *error);

int __wrap_file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_len,
                     struct error *error)
{
    if (reads_fail == 0 || strcmp(name, unreadable) != 0)
        return __real_file_read(dir_fd, name, max, ret, ret_len, error);
    reads_fail--;
    return error_set(error, EIO, "read %s", name);
}

/* ---- the bench: pods that an earlier run of the agent has frozen ---- */

static struct node *node;

static int setup(void **state)
{
    (void)state;
    reads_fail = 0;
    node = node_open(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    node = node_close(node);
    return 0;
}

/* Pods 1 to n, of two containers each, are frozen, and the agent is gone. */
static void freeze_and_stop(unsigned n)
{
    for (unsigned i = 1; i <= n; i++) {
        pod_make(i, 2);
        assert_int_equal(freeze(node, i), 0);
    }
    node_stop(node);
    fake_journal_clear();
}

static void assert_frozen(unsigned i)
{
    for (unsigned k = 0; k < 2; k++) {
        assert_string_equal(fake_read(container_path(i, k), "cgroup.freeze"), "1\n");
        assert_string_equal(fake_read(container_path(i, k), "memory.swap.max"), "max\n");
    }
    assert_true(has_record(node, i));
}

static void assert_untouched(unsigned i)
{
    for (unsigned k = 0; k < 2; k++) {
        assert_string_equal(fake_read(container_path(i, k), "cgroup.freeze"), "0\n");
        assert_string_equal(fake_read(container_path(i, k), "memory.swap.max"), "0\n");
    }
    assert_false(has_record(node, i));
}

static void start_and_settle(void)
{
    node_start(node);
    AWAIT(node, worker_pool_pending(node->disk) == 0);
}

static void assert_count(enum reconcile_result result, unsigned n)
{
    for (unsigned i = 0; i < RECONCILE_RESULTS_N; i++)
        assert_int_equal(node->counts.n[i], i == result ? n : 0);
    assert_int_equal(stat_of(node, STAT_RECONCILED, result), n);
}

static const char *record_path(unsigned i)
{
    return keep("%s/%s.json", node->state, nth_uid(i));
}

static void put_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Changes the record of a pod while no agent runs. */
static void change_record(unsigned i, void (*change)(struct record *record))
{
    struct store *store = NULL;
    struct record record;

    assert_int_equal(store_open(&store, node->state, 0, NULL), 0);
    assert_int_equal(store_get(store, nth_uid(i), &record, NULL), 0);
    change(&record);
    assert_int_equal(store_put(store, &record, NULL), 0);
    record_clear(&record);
    store_close(store);
}

/* ---- a restart changes nothing ---- */

static void test_what_is_frozen_is_adopted(void **state)
{
    (void)state;
    freeze_and_stop(3);
    start_and_settle();
    assert_count(RECONCILE_ADOPTED, 3);
    for (unsigned i = 1; i <= 3; i++) {
        assert_frozen(i);
        assert_int_equal(find_pod(node, i)->state, POD_FROZEN);
    }
    assert_int_equal(fake_journal_count(""), 0);
    assert_int_equal(events_last(node->events), 0); /* nothing has happened */
    assert_int_equal(stat_of(node, STAT_FREEZES, STAT_FREEZE_OK), 0);
}

static void test_an_adopted_pod_is_as_good_as_any(void **state)
{
    struct asked asked;

    (void)state;
    freeze_and_stop(1);
    start_and_settle();
    ask_freeze(node, 1, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    assert_true(asked.already);
    assert_int_equal(thaw(node, 1), 0);
    AWAIT(node, !find_pod(node, 1));
    assert_untouched(1);
}

static void test_the_originals_outlive_many_restarts(void **state)
{
    (void)state;
    freeze_and_stop(1);
    for (int i = 0; i < 3; i++) {
        start_and_settle();
        assert_int_equal(freeze(node, 1), 0);
        node_stop(node);
    }
    start_and_settle();
    assert_int_equal(thaw(node, 1), 0);
    AWAIT(node, !find_pod(node, 1));
    assert_untouched(1);
}

static void test_drift_is_noticed_on_adopted_pods(void **state)
{
    (void)state;
    freeze_and_stop(2);
    start_and_settle();
    fake_write(container_path(1, 0), "memory.swap.max", "0");
    AWAIT(node, stat_of(node, STAT_DRIFT, STAT_DRIFT_SWAP_MAX) == 1);
    assert_frozen(1);
    fake_write(container_path(2, 1), "cgroup.freeze", "0");
    AWAIT(node, !find_pod(node, 2));
    assert_untouched(2);
}

static void test_generations_of_frozen_pods_outlive_a_restart(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    ask_freeze_with(node, 1, RECLAIM_OFF, 5, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    node_stop(node);
    start_and_settle();
    ask_freeze_with(node, 1, RECLAIM_OFF, 4, &asked);
    assert_int_equal(await_answer(node, &asked), FREEZER_E_STALE);
}

/* The last word before the crash was the request; the fact comes later. */
static void test_a_pod_that_is_not_frozen_yet_is_waited_for(void **state)
{
    (void)state;
    freeze_and_stop(1);
    fake_put(container_path(1, 1), "cgroup.events", "populated 1\nfrozen 0\n");
    start_and_settle();
    assert_count(RECONCILE_ADOPTED, 1);
    assert_int_equal(find_pod(node, 1)->state, POD_FREEZING);
    fake_put(container_path(1, 1), "cgroup.events", "populated 1\nfrozen 1\n");
    AWAIT(node, find_pod(node, 1)->state == POD_FROZEN);
    assert_frozen(1);
}

static void test_a_reclaim_that_was_cut_short_goes_on(void **state)
{
    struct asked asked;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_reclaim_gate);
    ask_freeze_with(node, 1, RECLAIM_BACKGROUND, 0, &asked);
    assert_int_equal(await_answer(node, &asked), 0);
    gate_await(&fake_reclaim_gate, 1);
    gate_open(&fake_reclaim_gate);
    node_stop(node);
    start_and_settle();
    AWAIT(node, find_pod(node, 1)->reclaim_state == RECLAIM_DONE);
    assert_string_equal(fake_read(container_path(1, 0), "memory.current"), "0\n");
}

/* ---- kill -9 at any instruction ---- */

/* Every state that the writes of a freeze or of a thaw pass through, and those that they do not. */
static void test_a_crash_at_any_write_converges(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 16; bits++) {
        freeze_and_stop(1);
        for (unsigned k = 0; k < 2; k++) {
            fake_write(container_path(1, k), "cgroup.freeze", bits & (1u << k) ? "1" : "0");
            fake_write(container_path(1, k), "memory.swap.max", bits & (4u << k) ? "max" : "0");
        }
        node_start(node);
        if ((bits & 3) == 3) {
            assert_count(RECONCILE_ADOPTED, 1);
            assert_int_equal(find_pod(node, 1)->state, POD_FROZEN);
            assert_int_equal(thaw(node, 1), 0);
        } else {
            assert_count(RECONCILE_ROLLED_BACK, 1);
        }
        AWAIT(node, !find_pod(node, 1));
        assert_untouched(1);
        fake_remove(pod_path(1));
    }
}

static void test_a_crash_before_the_record_is_whole_leaves_nothing(void **state)
{
    (void)state;
    pod_make(1, 2);
    node_stop(node);
    put_text(keep("%s/.tmp-%s.json", node->state, nth_uid(1)), "{\"version\":1,");
    start_and_settle();
    assert_int_equal(freezer_count(node->freezer), 0);
    assert_int_equal(count_entries(node->state), 1); /* the lock */
    assert_untouched(1);
}

/* ---- what changed while nobody looked ---- */

static void test_a_container_that_went_has_the_rest_rolled_back(void **state)
{
    (void)state;
    freeze_and_stop(1);
    fake_remove(container_path(1, 1));
    start_and_settle();
    assert_count(RECONCILE_ROLLED_BACK, 1);
    AWAIT(node, !find_pod(node, 1));
    assert_false(is_asked_to_freeze(1, 0));
    assert_false(has_record(node, 1));
}

static void test_a_container_that_is_another_has_the_rest_rolled_back(void **state)
{
    (void)state;
    freeze_and_stop(1);
    fake_replace(container_path(1, 1));
    start_and_settle();
    assert_count(RECONCILE_ROLLED_BACK, 1);
    AWAIT(node, !find_pod(node, 1));
    assert_int_equal(fake_journal_count(container_id(1)), 0);
}

static void test_a_container_that_came_has_the_pod_rolled_back(void **state)
{
    (void)state;
    freeze_and_stop(1);
    fake_group(container_path(1, 2), "0", 0);
    start_and_settle();
    assert_count(RECONCILE_ROLLED_BACK, 1);
    AWAIT(node, !find_pod(node, 1));
    assert_untouched(1);
}

static void test_a_pod_that_went_is_dropped(void **state)
{
    (void)state;
    freeze_and_stop(2);
    fake_remove(pod_path(1));
    start_and_settle();
    assert_int_equal(node->counts.n[RECONCILE_GONE], 1);
    assert_int_equal(node->counts.n[RECONCILE_ADOPTED], 1);
    assert_false(has_record(node, 1));
    assert_frozen(2);
}

static void test_a_pod_without_processes_is_dropped_and_not_left_frozen(void **state)
{
    (void)state;
    freeze_and_stop(1);
    fake_populate(container_path(1, 0), false);
    fake_populate(container_path(1, 1), false);
    start_and_settle();
    assert_count(RECONCILE_GONE, 1);
    assert_untouched(1);
}

static void change_boot(struct record *record)
{
    record->boot_id[0] ^= 1;
}

static void test_a_record_of_another_boot_is_dropped(void **state)
{
    (void)state;
    freeze_and_stop(1);
    change_record(1, change_boot);
    start_and_settle();
    assert_count(RECONCILE_OTHER_BOOT, 1);
    assert_false(has_record(node, 1));
    assert_int_equal(fake_journal_count("kubepods"), 0);
}

/* ---- records that cannot be understood ---- */

static void assert_set_aside(unsigned i)
{
    assert_false(has_record(node, i));
    assert_int_equal(access(keep("%s.unreadable", record_path(i)), F_OK), 0);
    assert_false(is_asked_to_freeze(i, 0));
    assert_false(is_asked_to_freeze(i, 1));
    assert_true(!node->freezer || !find_pod(node, i));
}

static void test_a_corrupt_record_is_kept_and_its_pod_runs(void **state)
{
    (void)state;
    freeze_and_stop(1);
    assert_int_equal(truncate(record_path(1), 100), 0);
    start_and_settle();
    assert_count(RECONCILE_CORRUPT, 1);
    assert_set_aside(1);
}

static void test_a_record_of_another_version_is_kept_and_its_pod_runs(void **state)
{
    static const char json[] = "{\"version\":2,\"something\":\"else\"}";
    uint64_t hash = 0xcbf29ce484222325;

    (void)state;
    freeze_and_stop(1);
    for (const char *p = json; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    put_text(record_path(1), keep("%s\n%016" PRIx64 "\n", json, hash));
    start_and_settle();
    assert_count(RECONCILE_OTHER_VERSION, 1);
    assert_set_aside(1);
}

static void test_a_corrupt_record_of_a_pod_that_is_gone(void **state)
{
    (void)state;
    node_stop(node);
    put_text(record_path(7), "");
    start_and_settle();
    assert_count(RECONCILE_CORRUPT, 1);
    assert_false(has_record(node, 7));
}

static void test_one_bad_record_does_not_keep_the_others_from_being_looked_at(void **state)
{
    (void)state;
    freeze_and_stop(3);
    put_text(record_path(2), "nonsense");
    put_text(record_path(9), "");
    start_and_settle();
    assert_int_equal(node->counts.n[RECONCILE_ADOPTED], 2);
    assert_int_equal(node->counts.n[RECONCILE_CORRUPT], 2);
    assert_frozen(1);
    assert_frozen(3);
    assert_set_aside(2);
}

static void fail_reads(unsigned i, unsigned times)
{
    unreadable = strrchr(record_path(i), '/') + 1;
    reads_fail = times;
}

static void test_a_record_that_cannot_be_read_for_a_moment_is_adopted(void **state)
{
    (void)state;
    freeze_and_stop(2);
    fail_reads(1, 1);
    start_and_settle();
    assert_count(RECONCILE_ADOPTED, 2);
}

static void test_a_record_that_cannot_be_read_is_left_as_it_is(void **state)
{
    (void)state;
    freeze_and_stop(2);
    fail_reads(1, 1000);
    start_and_settle();
    assert_int_equal(node->counts.n[RECONCILE_FAILED], 1);
    assert_int_equal(node->counts.n[RECONCILE_ADOPTED], 1);
    assert_frozen(1); /* for the next start */
    assert_null(find_pod(node, 1));
    node_stop(node);
    reads_fail = 0;
    start_and_settle();
    assert_count(RECONCILE_ADOPTED, 2);
}

/* ---- leaving for good ---- */

static void thaw_all(unsigned thawed, unsigned failed)
{
    struct cgroup_root *root = NULL;
    struct layout *layout = NULL;
    struct store *store = NULL;
    unsigned n_thawed = 99, n_failed = 99;

    assert_int_equal(cgroup_root_open(&root, node->tree, CGROUP_ROOT_ANY_FS, NULL), 0);
    assert_int_equal(layout_open(&layout, root, NULL), 0);
    assert_int_equal(store_open(&store, node->state, STORE_SHARED, NULL), 0);
    assert_int_equal(reconcile_thaw_all(root, layout, store, &n_thawed, &n_failed, NULL), 0);
    assert_int_equal(n_thawed, thawed);
    assert_int_equal(n_failed, failed);
    store_close(store);
    layout_close(layout);
    cgroup_root_close(root);
}

static void test_thawing_all_leaves_nothing(void **state)
{
    (void)state;
    freeze_and_stop(3);
    fake_remove(pod_path(3));
    thaw_all(3, 0);
    assert_untouched(1);
    assert_untouched(2);
    assert_int_equal(count_entries(node->state), 1);
    thaw_all(0, 0);
}

static void test_thawing_all_goes_on_after_a_failure(void **state)
{
    (void)state;
    freeze_and_stop(3);
    put_text(record_path(2), "nonsense");
    fake_refuse(container_path(1, 0), "cgroup.freeze", EIO, 1);
    thaw_all(2, 1);
    assert_true(has_record(node, 1)); /* for the next try */
    assert_set_aside(2);
    assert_untouched(3);
    thaw_all(1, 0);
    assert_untouched(1);
}

static void test_thawing_all_beside_a_running_agent(void **state)
{
    (void)state;
    freeze_and_stop(2);
    start_and_settle();
    thaw_all(2, 0);
    AWAIT(node, freezer_count(node->freezer) == 0); /* which notices */
    assert_untouched(1);
    assert_untouched(2);
}

static void test_every_result_has_a_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RECONCILE_RESULTS_N; i++)
        assert_non_null(reconcile_result_names[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_frozen_is_adopted),
        TEST(test_an_adopted_pod_is_as_good_as_any),
        TEST(test_the_originals_outlive_many_restarts),
        TEST(test_drift_is_noticed_on_adopted_pods),
        TEST(test_generations_of_frozen_pods_outlive_a_restart),
        TEST(test_a_pod_that_is_not_frozen_yet_is_waited_for),
        TEST(test_a_reclaim_that_was_cut_short_goes_on),
        TEST(test_a_crash_at_any_write_converges),
        TEST(test_a_crash_before_the_record_is_whole_leaves_nothing),
        TEST(test_a_container_that_went_has_the_rest_rolled_back),
        TEST(test_a_container_that_is_another_has_the_rest_rolled_back),
        TEST(test_a_container_that_came_has_the_pod_rolled_back),
        TEST(test_a_pod_that_went_is_dropped),
        TEST(test_a_pod_without_processes_is_dropped_and_not_left_frozen),
        TEST(test_a_record_of_another_boot_is_dropped),
        TEST(test_a_corrupt_record_is_kept_and_its_pod_runs),
        TEST(test_a_record_of_another_version_is_kept_and_its_pod_runs),
        TEST(test_a_corrupt_record_of_a_pod_that_is_gone),
        TEST(test_one_bad_record_does_not_keep_the_others_from_being_looked_at),
        TEST(test_a_record_that_cannot_be_read_for_a_moment_is_adopted),
        TEST(test_a_record_that_cannot_be_read_is_left_as_it_is),
        TEST(test_thawing_all_leaves_nothing),
        TEST(test_thawing_all_goes_on_after_a_failure),
        TEST(test_thawing_all_beside_a_running_agent),
        TEST(test_every_result_has_a_name),
    };

    return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
