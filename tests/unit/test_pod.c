#include "agent/pod.h"

#include <dirent.h>
#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/limits.h"
#include "fake_calls.h"
#include "node.h"

/* ---- the bench: a tree without an agent, and pod 1 in it ---- */

static struct node *node;
static struct cgroup_root *root;
static struct layout *layout;

static int open_bench(bool no_memory)
{
    struct node_options options = { .no_agent = true, .no_memory = no_memory };

    node = node_open(&options);
    if (cgroup_root_open(&root, node->tree, CGROUP_ROOT_ANY_FS, NULL) < 0)
        return -1;
    return layout_open(&layout, root, NULL);
}

static int setup(void **state)
{
    (void)state;
    return open_bench(false);
}

static int setup_no_memory(void **state)
{
    (void)state;
    return open_bench(true);
}

static int teardown(void **state)
{
    (void)state;
    layout = layout_close(layout);
    root = cgroup_root_close(root);
    node = node_close(node);
    return 0;
}

static int discover(struct pod_cgroups *pod)
{
    struct error error = ERROR_INIT;
    int r = pod_discover(pod, layout, nth_uid(1), &error);

    assert_true((r != 0) <= (*error.msg != '\0'));
    return r;
}

static struct pod_cgroups discovered(void)
{
    struct pod_cgroups pod;

    assert_int_equal(discover(&pod), 0);
    return pod;
}

static void assert_outcome(int outcome)
{
    struct pod_cgroups pod = { .pod_fd = -1 };
    unsigned open_files = count_entries("/proc/self/fd");

    assert_int_equal(discover(&pod), outcome);
    assert_int_equal(pod.pod_fd, -1);
    assert_int_equal(count_entries("/proc/self/fd"), open_files);
}

static const struct record_container *find_container(const struct pod_cgroups *pod, unsigned k)
{
    for (unsigned i = 0; i < pod->record.n_containers; i++)
        if (strcmp(pod->record.containers[i].id, container_id(k)) == 0)
            return &pod->record.containers[i];
    return NULL;
}

static const char *nested(unsigned k, const char *below)
{
    return keep("%s/%s", container_path(1, k), below);
}

/* ---- discovery ---- */

static void test_containers_are_found_with_their_originals(void **state)
{
    (void)state;
    pod_make(1, 2);
    fake_write(container_path(1, 1), "memory.swap.max", "67108864");
    fake_group(nested(1, "a"), "4096", 0);
    fake_group(nested(1, "a/b"), "max", 0);
    struct pod_cgroups pod = discovered();

    assert_string_equal(pod.record.pod_uid, nth_uid(1));
    assert_int_equal(pod.record.n_containers, 2);
    const struct record_container *first = find_container(&pod, 0),
                                  *second = find_container(&pod, 1);
    assert_string_equal(first->cgroup, container_path(1, 0));
    assert_int_equal(first->memory_before, POD_MEMORY);
    assert_int_equal(first->n_groups, 1);
    assert_string_equal(first->groups[0].path, "");
    assert_string_equal(first->groups[0].swap_max, "0");
    assert_int_equal(second->n_groups, 3);
    assert_string_equal(second->groups[0].swap_max, "67108864");
    assert_string_equal(second->groups[1].path, "a");
    assert_string_equal(second->groups[1].swap_max, "4096");
    assert_string_equal(second->groups[2].path, "a/b");
    assert_string_equal(second->groups[2].swap_max, "max");
    assert_true(first->groups[0].inode != second->groups[0].inode);
    assert_int_equal(fake_journal_count(""), 0); /* to look is not to write */
    pod_clear(&pod);
    assert_int_equal(pod.pod_fd, -1);
    pod_clear(&pod); /* again */
}

static void test_what_is_no_running_container_is_passed_over(void **state)
{
    (void)state;
    pod_make(1, 3);
    fake_populate(container_path(1, 1), false);
    fake_group(keep("%s/crio-conmon-%s", pod_path(1), container_id(7)), "max", 0);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.n_containers, 2);
    assert_null(find_container(&pod, 1));
    assert_null(find_container(&pod, 7));
    pod_clear(&pod);
}

/* In a group of its own, or as crun makes it in one below. */
static void test_the_sandbox_is_passed_over(void **state)
{
    pid_t sandbox = process_start("pause");

    (void)state;
    pod_make(1, 3);
    fake_put(container_path(1, 1), "cgroup.procs", keep("%d\n", (int)sandbox));
    fake_group(nested(2, "container"), "max", 0);
    fake_put(nested(2, "container"), "cgroup.procs", keep("%d\n", (int)sandbox));
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.n_containers, 1);
    assert_non_null(find_container(&pod, 0));
    pod_clear(&pod);
    process_end(sandbox);
}

static void test_systemd_names(void **state)
{
    char uid[POD_UID_SIZE];

    (void)state;
    strcpy(uid, nth_uid(1));
    for (char *p = uid; *p; p++)
        if (*p == '-')
            *p = '_';
    const char *slice = keep("kubepods.slice/kubepods-pod%s.slice", uid);
    fake_group(keep("%s/crio-%s.scope", slice, container_id(0)), "0", 0);
    fake_group(keep("%s/crio-conmon-%s.scope", slice, container_id(0)), "0", 0);
    fake_group(keep("%s/something.service", slice), "0", 0);
    assert_int_equal(layout_refresh(layout, NULL), 0);
    struct pod_cgroups pod = discovered();
    assert_true(pod.systemd);
    assert_int_equal(pod.record.n_containers, 1);
    assert_string_equal(pod.record.containers[0].id, container_id(0));
    pod_clear(&pod);
}

static void test_without_a_memory_controller_there_is_nothing_to_restore(void **state)
{
    (void)state;
    pod_make(1, 1);
    struct pod_cgroups pod = discovered();
    assert_string_equal(pod.record.containers[0].groups[0].swap_max, "");
    assert_int_equal(pod.record.containers[0].memory_before, 0);
    assert_int_equal(pod_allow_swap(&pod, NULL), 0);
    assert_int_equal(pod_restore_swap(&pod, NULL), 0);
    assert_int_equal(fake_journal_count(""), 0);
    pod_clear(&pod);
}

static void test_a_pod_without_a_container_is_empty_and_filled_all_the_same(void **state)
{
    struct pod_cgroups pod;

    (void)state;
    fake_group(pod_path(1), "max", 0);
    assert_int_equal(discover(&pod), POD_E_EMPTY);
    assert_string_equal(pod.record.pod_uid, nth_uid(1));
    assert_int_equal(pod.record.n_containers, 0);
    pod_clear(&pod);
}

static void test_a_pod_that_is_not_there(void **state)
{
    (void)state;
    assert_outcome(POD_E_NOT_FOUND);
}

/* Its own group, or one below it. */
static void test_the_agents_own_pod(void **state)
{
    char self[16];

    (void)state;
    snprintf(self, sizeof self, "%d\n", (int)getpid());
    pod_make(1, 2);
    fake_put(container_path(1, 1), "cgroup.procs", self);
    assert_outcome(POD_E_SELF);
    fake_put(container_path(1, 1), "cgroup.procs", "");
    fake_group(nested(1, "container"), "max", 0);
    fake_put(nested(1, "container"), "cgroup.procs", self);
    assert_outcome(POD_E_SELF);
}

static void test_a_file_that_says_nonsense_is_an_error(void **state)
{
    static const char *const files[] = { "cgroup.events", "cgroup.freeze", "memory.swap.max",
                                         "memory.current" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        pod_make(1, 2);
        fake_put(container_path(1, 1), files[i], "nonsense\n");
        assert_outcome(-EBADMSG);
        fake_remove(pod_path(1));
    }
}

static void test_links_are_passed_over(void **state)
{
    (void)state;
    pod_make(1, 1);
    pod_make(2, 1);
    assert_int_equal(symlink(keep("%s/%s", node->tree, container_path(2, 0)),
                             keep("%s/%s/%s", node->tree, pod_path(1), container_id(5))),
                     0);
    assert_int_equal(symlink("/", keep("%s/%s", node->tree, nested(0, "below"))), 0);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.n_containers, 1);
    assert_int_equal(pod.record.containers[0].n_groups, 1);
    pod_clear(&pod);
}

/* ---- limits ---- */

static void test_so_many_containers(void **state)
{
    (void)state;
    pod_make(1, POD_CONTAINERS_MAX);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.n_containers, POD_CONTAINERS_MAX);
    pod_clear(&pod);
    fake_group(container_path(1, POD_CONTAINERS_MAX), "0", 0);
    assert_outcome(POD_E_TOO_MANY);
}

static void test_so_many_groups_in_a_container(void **state)
{
    (void)state;
    pod_make(1, 1);
    for (unsigned i = 1; i < CONTAINER_GROUPS_MAX; i++)
        fake_group(nested(0, keep("g%u", i)), "max", 0);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.containers[0].n_groups, CONTAINER_GROUPS_MAX);
    pod_clear(&pod);
    fake_group(nested(0, "one-more"), "max", 0);
    assert_outcome(POD_E_TOO_MANY);
}

static void test_so_deep(void **state)
{
    char below[64] = "d";

    (void)state;
    pod_make(1, 1);
    for (unsigned depth = 1; depth < CONTAINER_DEPTH_MAX; depth++)
        strcat(below, "/d");
    fake_group(nested(0, below), "max", 0);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod.record.containers[0].n_groups, CONTAINER_DEPTH_MAX + 1);
    pod_clear(&pod);
    fake_group(nested(0, keep("%s/d", below)), "max", 0);
    assert_outcome(POD_E_TOO_MANY);
}

static void test_names_that_are_too_long_together(void **state)
{
    char name[130];

    (void)state;
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    pod_make(1, 1);
    fake_group(nested(0, name), "max", 0);
    struct pod_cgroups pod = discovered();
    pod_clear(&pod);
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", container_path(1, 0), name, name);
    fake_group(path, "max", 0);
    assert_outcome(POD_E_TOO_MANY);
}

/* ---- from a record ---- */

static struct pod_cgroups reopened(struct pod_cgroups *pod)
{
    struct pod_cgroups other;

    assert_int_equal(pod_open_recorded(&other, root, layout, &pod->record, NULL), 0);
    for (unsigned i = 0; i < other.record.n_containers; i++)
        close(pod->containers[i].fd);
    free(pod->containers);
    close(pod->pod_fd);
    assert_int_equal(pod->record.n_containers, 0); /* it was taken */
    return other;
}

static void test_a_recorded_pod_is_opened_again(void **state)
{
    (void)state;
    pod_make(1, 2);
    struct pod_cgroups pod = discovered();
    pod = reopened(&pod);
    assert_true(pod.pod_fd >= 0);
    assert_true(pod.containers[0].fd >= 0 && pod.containers[1].fd >= 0);
    pod_clear(&pod);
}

static void test_what_is_gone_or_another_is_not_opened(void **state)
{
    (void)state;
    pod_make(1, 3);
    struct pod_cgroups pod = discovered();
    unsigned gone = (unsigned)(find_container(&pod, 0) - pod.record.containers);
    unsigned other = (unsigned)(find_container(&pod, 1) - pod.record.containers);
    fake_remove(container_path(1, 0));
    fake_replace(container_path(1, 1));
    pod = reopened(&pod);
    assert_int_equal(pod.containers[gone].fd, -1);
    assert_int_equal(pod.containers[other].fd, -1);
    assert_int_equal(pod_thaw(&pod, NULL), 0); /* of the rest */
    assert_int_equal(fake_journal_count("freeze=0"), 1);
    pod_clear(&pod);
}

static void test_a_pod_that_is_gone_is_opened_as_such(void **state)
{
    struct pod_truth truth;
    bool stranger = true;

    (void)state;
    pod_make(1, 2);
    struct pod_cgroups pod = discovered();
    fake_remove(pod_path(1));
    pod = reopened(&pod);
    assert_int_equal(pod.pod_fd, -1);
    assert_int_equal(pod_read_truth(&pod, &truth, NULL), 0);
    assert_int_equal(truth.present, 0);
    assert_int_equal(pod_find_stranger(&pod, &stranger, NULL), 0);
    assert_false(stranger);
    assert_int_equal(pod_thaw(&pod, NULL), 0);
    assert_int_equal(pod_restore_swap(&pod, NULL), 0);
    pod_clear(&pod);
}

/* ---- writes ---- */

static void test_swap_is_allowed_and_restored_on_every_recorded_group(void **state)
{
    (void)state;
    pod_make(1, 2);
    fake_group(nested(0, "a"), "8192", 0);
    struct pod_cgroups pod = discovered();
    fake_group(nested(0, "new"), "1", 0); /* made after the record */
    assert_int_equal(pod_allow_swap(&pod, NULL), 0);
    assert_string_equal(fake_read(container_path(1, 0), "memory.swap.max"), "max\n");
    assert_string_equal(fake_read(nested(0, "a"), "memory.swap.max"), "max\n");
    assert_string_equal(fake_read(nested(0, "new"), "memory.swap.max"), "1\n");
    assert_int_equal(pod_restore_swap(&pod, NULL), 0);
    assert_string_equal(fake_read(container_path(1, 0), "memory.swap.max"), "0\n");
    assert_string_equal(fake_read(nested(0, "a"), "memory.swap.max"), "8192\n");
    pod_clear(&pod);
}

static void test_a_nested_group_that_is_gone_or_another_is_left_alone(void **state)
{
    (void)state;
    pod_make(1, 1);
    fake_group(nested(0, "a"), "8192", 0);
    fake_group(nested(0, "b"), "8192", 0);
    struct pod_cgroups pod = discovered();
    fake_remove(nested(0, "a"));
    fake_replace(nested(0, "b"));
    assert_int_equal(pod_restore_swap(&pod, NULL), 0);
    assert_string_equal(fake_read(nested(0, "b"), "memory.swap.max"), "max\n");
    assert_int_equal(fake_journal_count("memory.swap.max"), 1);
    pod_clear(&pod);
}

static void test_thawing_goes_on_after_a_failure_and_tells_the_first(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    pod_make(1, 3);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod_freeze(&pod, NULL), 0);
    const char *first = pod.record.containers[0].cgroup;
    fake_refuse(first, "cgroup.freeze", EIO, 1);
    assert_int_equal(pod_thaw(&pod, &error), -EIO);
    assert_non_null(strstr(error.msg, pod.record.containers[0].id));
    assert_int_equal(fake_journal_count("freeze=0"), 3);
    fake_refuse(first, "memory.swap.max", EPERM, 1);
    assert_int_equal(pod_restore_swap(&pod, &error), -EPERM);
    assert_int_equal(fake_journal_count("swap.max=0"), 3);
    pod_clear(&pod);
}

static void test_freezing_stops_at_the_first_failure(void **state)
{
    (void)state;
    pod_make(1, 3);
    struct pod_cgroups pod = discovered();
    fake_refuse(pod.record.containers[1].cgroup, "cgroup.freeze", EIO, 1);
    assert_int_equal(pod_freeze(&pod, NULL), -EIO);
    assert_int_equal(fake_journal_count("freeze=1"), 2);
    fake_remove(pod.record.containers[0].cgroup);
    assert_int_equal(pod_freeze(&pod, NULL), POD_E_CHANGED);
    pod_clear(&pod);
}

static void test_only_what_somebody_changed_is_set_again(void **state)
{
    bool changed = true;

    (void)state;
    pod_make(1, 1);
    struct pod_cgroups pod = discovered();
    assert_int_equal(pod_allow_swap(&pod, NULL), 0);
    fake_journal_clear();
    assert_int_equal(pod_allow_swap_again(&pod, 0, &changed, NULL), 0);
    assert_false(changed);
    assert_int_equal(fake_journal_count(""), 0);
    fake_write(container_path(1, 0), "memory.swap.max", "0");
    assert_int_equal(pod_allow_swap_again(&pod, 0, &changed, NULL), 0);
    assert_true(changed);
    assert_string_equal(fake_read(container_path(1, 0), "memory.swap.max"), "max\n");
    pod_clear(&pod);
}

/* ---- reads ---- */

static struct pod_truth truth_of(const struct pod_cgroups *pod)
{
    struct pod_truth truth;

    assert_int_equal(pod_read_truth(pod, &truth, NULL), 0);
    return truth;
}

static void test_the_truth_is_what_the_files_say(void **state)
{
    (void)state;
    pod_make(1, 4);
    struct pod_cgroups pod = discovered();
    struct pod_truth truth = truth_of(&pod);
    assert_int_equal(truth.present, 4);
    assert_int_equal(truth.requested, 0);
    fake_never_freezes(container_path(1, 3));
    assert_int_equal(pod_freeze(&pod, NULL), 0);
    fake_populate(container_path(1, 0), false);
    fake_remove(container_path(1, 1));
    truth = truth_of(&pod);
    assert_int_equal(truth.present, 2);
    assert_int_equal(truth.requested, 2);
    assert_int_equal(truth.frozen, 1);
    pod_clear(&pod);
}

/* Frozen from above is not frozen by us. */
static void test_the_fact_without_the_request_does_not_count(void **state)
{
    (void)state;
    pod_make(1, 1);
    struct pod_cgroups pod = discovered();
    fake_write(pod_path(1), "cgroup.freeze", "1");
    struct pod_truth truth = truth_of(&pod);
    assert_int_equal(truth.requested, 0);
    assert_int_equal(truth.frozen, 0);
    pod_clear(&pod);
}

static void test_who_asked_is_told_from_who_is_frozen(void **state)
{
    (void)state;
    pod_make(1, 2);
    fake_write(container_path(1, 0), "cgroup.freeze", "1");
    struct pod_cgroups pod = discovered();
    unsigned first = (unsigned)(find_container(&pod, 0) - pod.record.containers);
    assert_true(pod.containers[first].foreign);
    assert_false(pod.containers[1 - first].foreign);
    pod_clear(&pod);
    fake_lingers(container_path(1, 0));
    fake_write(container_path(1, 0), "cgroup.freeze", "0");
    pod = discovered();
    assert_false(pod.containers[0].foreign || pod.containers[1].foreign);
    pod_clear(&pod);
    fake_write("kubepods", "cgroup.freeze", "1");
    pod = discovered();
    assert_true(pod.containers[0].foreign && pod.containers[1].foreign);
    pod_clear(&pod);
}

static bool has_stranger(const struct pod_cgroups *pod)
{
    bool stranger = false;

    assert_int_equal(pod_find_stranger(pod, &stranger, NULL), 0);
    return stranger;
}

static void test_a_stranger_is_a_container_that_runs_and_is_not_recorded(void **state)
{
    pid_t sandbox = process_start("pause");

    (void)state;
    pod_make(1, 2);
    struct pod_cgroups pod = discovered();
    assert_false(has_stranger(&pod));
    fake_group(container_path(1, 5), "0", 0);
    fake_put(container_path(1, 5), "cgroup.procs", keep("%d\n", (int)sandbox));
    assert_false(has_stranger(&pod)); /* a sandbox made anew */
    fake_group(container_path(1, 6), "0", 0);
    fake_populate(container_path(1, 6), false);
    assert_false(has_stranger(&pod)); /* nothing runs there yet */
    fake_populate(container_path(1, 6), true);
    assert_true(has_stranger(&pod));
    fake_remove(container_path(1, 6));
    assert_false(has_stranger(&pod));
    fake_replace(container_path(1, 1));
    assert_true(has_stranger(&pod)); /* the same name, another group */
    pod_clear(&pod);
    process_end(sandbox);
}

static void test_the_nearest_ancestor_that_limits_swap_is_named(void **state)
{
    char path[CGROUP_PATH_SIZE];

    (void)state;
    pod_make(1, 1);
    struct pod_cgroups pod = discovered();
    pod_find_swap_limit(&pod, root, 4096, path);
    assert_string_equal(path, ""); /* the container's own is ours to lift */
    fake_write("kubepods", "memory.swap.max", "0");
    pod_find_swap_limit(&pod, root, 4096, path);
    assert_string_equal(path, "kubepods");
    fake_write(pod_path(1), "memory.swap.max", "8192");
    fake_put(pod_path(1), "memory.swap.current", "4096\n");
    pod_find_swap_limit(&pod, root, 4096, path);
    assert_string_equal(path, "kubepods"); /* 4096 is just enough */
    pod_find_swap_limit(&pod, root, 4097, path);
    assert_string_equal(path, pod_path(1));
    pod_clear(&pod);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_containers_are_found_with_their_originals),
        TEST(test_what_is_no_running_container_is_passed_over),
        TEST(test_the_sandbox_is_passed_over),
        TEST(test_systemd_names),
        cmocka_unit_test_setup_teardown(
            test_without_a_memory_controller_there_is_nothing_to_restore, setup_no_memory,
            teardown),
        TEST(test_a_pod_without_a_container_is_empty_and_filled_all_the_same),
        TEST(test_a_pod_that_is_not_there),
        TEST(test_the_agents_own_pod),
        TEST(test_a_file_that_says_nonsense_is_an_error),
        TEST(test_links_are_passed_over),
        TEST(test_so_many_containers),
        TEST(test_so_many_groups_in_a_container),
        TEST(test_so_deep),
        TEST(test_names_that_are_too_long_together),
        TEST(test_a_recorded_pod_is_opened_again),
        TEST(test_what_is_gone_or_another_is_not_opened),
        TEST(test_a_pod_that_is_gone_is_opened_as_such),
        TEST(test_swap_is_allowed_and_restored_on_every_recorded_group),
        TEST(test_a_nested_group_that_is_gone_or_another_is_left_alone),
        TEST(test_thawing_goes_on_after_a_failure_and_tells_the_first),
        TEST(test_freezing_stops_at_the_first_failure),
        TEST(test_only_what_somebody_changed_is_set_again),
        TEST(test_the_truth_is_what_the_files_say),
        TEST(test_the_fact_without_the_request_does_not_count),
        TEST(test_who_asked_is_told_from_who_is_frozen),
        TEST(test_a_stranger_is_a_container_that_runs_and_is_not_recorded),
        TEST(test_the_nearest_ancestor_that_limits_swap_is_named),
    };

    return cmocka_run_group_tests_name("pod", tests, NULL, NULL);
}
