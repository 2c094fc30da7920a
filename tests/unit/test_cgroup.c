#include "agent/cgroup.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/limits.h"
#include "node.h"

#define MIB ((uint64_t)1 << 20)

/* ---- the bench: a tree, and a group "a/b" in it ---- */

static struct node *node;
static struct cgroup_root *root;
static int group = -1;

static int setup(void **state)
{
    struct node_options options = { .no_agent = true };

    (void)state;
    node = node_open(&options);
    fake_group("a/b", "67108864", 4096);
    if (cgroup_root_open(&root, node->tree, CGROUP_ROOT_ANY_FS, NULL) < 0)
        return -1;
    return cgroup_open(root, "a/b", &group, NULL);
}

static int teardown(void **state)
{
    (void)state;
    close_p(&group);
    root = cgroup_root_close(root);
    node = node_close(node);
    return 0;
}

static const char *full(const char *path)
{
    return keep("%s/%s", node->tree, path);
}

/* ---- the root ---- */

static void test_a_plain_directory_is_no_root(void **state)
{
    struct cgroup_root *other = NULL;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(cgroup_root_open(&other, node->tree, 0, &error), -EINVAL);
    assert_non_null(strstr(error.msg, node->tree));
    assert_int_equal(cgroup_root_open(&other, full("none"), 0, NULL), -ENOENT);
    assert_int_equal(cgroup_root_open(&other, full("cgroup.controllers"), 0, NULL), -ENOTDIR);
    assert_null(other);
    assert_null(cgroup_root_close(NULL));
}

static void test_the_memory_controller_is_there_or_not(void **state)
{
    struct cgroup_root *other = NULL;

    (void)state;
    assert_true(cgroup_root_has_memory(root));
    assert_string_equal(cgroup_root_path(root), node->tree);
    fake_put("", "cgroup.controllers", "cpu io pids\n");
    assert_int_equal(cgroup_root_open(&other, node->tree, CGROUP_ROOT_ANY_FS, NULL), 0);
    assert_false(cgroup_root_has_memory(other));
    cgroup_root_close(other);
}

/* ---- opening ---- */

static void test_groups_are_opened_beneath_the_root(void **state)
{
    static const char *const good[] = { "", ".", "a", "a/b", "a/../a/b" };
    static const char *const bad[] = { "..", "../", "a/../..", "/", "/etc", "a/../../cgroup" };
    int fd = -1;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(cgroup_open(root, good[i], &fd, NULL), 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
    }
    fd = -1;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error error = ERROR_INIT;
        assert_int_equal(cgroup_open(root, bad[i], &fd, &error), -EXDEV);
        assert_true(*error.msg);
    }
    assert_int_equal(cgroup_open(root, "a/none", &fd, NULL), -ENOENT);
    assert_true(cgroup_is_gone(cgroup_open(root, "none", &fd, NULL)));
    assert_int_equal(cgroup_open(root, "a/cgroup.freeze", &fd, NULL), -ENOTDIR);
    assert_int_equal(cgroup_open_child(group, "..", &fd, NULL), -EXDEV);
    assert_int_equal(fd, -1);
}

static void test_no_link_is_followed(void **state)
{
    char buffer[64];
    int fd = -1;

    (void)state;
    assert_int_equal(symlink("a", full("link")), 0);
    assert_int_equal(symlink("/proc/self/cwd", full("magic")), 0);
    assert_int_equal(symlink("../../cgroup.controllers", full("a/b/file")), 0);
    assert_int_equal(cgroup_open(root, "link", &fd, NULL), -ELOOP);
    assert_int_equal(cgroup_open(root, "link/b", &fd, NULL), -ELOOP);
    assert_int_equal(cgroup_open(root, "magic", &fd, NULL), -ELOOP);
    assert_int_equal(cgroup_read(group, "file", buffer, sizeof buffer, NULL), -ELOOP);
    assert_int_equal(cgroup_write(group, "file", "x", NULL), -ELOOP);
}

static void test_a_group_made_anew_is_another(void **state)
{
    uint64_t before, after;
    int fd = -1;

    (void)state;
    assert_int_equal(cgroup_inode(group, &before, NULL), 0);
    fake_replace("a/b");
    assert_int_equal(cgroup_open(root, "a/b", &fd, NULL), 0);
    assert_int_equal(cgroup_inode(fd, &after, NULL), 0);
    assert_true(before != after);
    close(fd);
    /* the fd still means the old one, which is gone */
    assert_true(cgroup_is_gone(cgroup_write_freeze(group, true, NULL)));
}

static void test_groups_are_made_and_destroyed(void **state)
{
    int fd = -1;

    (void)state;
    assert_int_equal(cgroup_create(root, "selftest", &fd, NULL), 0);
    close(fd);
    assert_int_equal(cgroup_create(root, "selftest", &fd, NULL), 0); /* of a crash */
    close(fd);
    assert_int_equal(cgroup_destroy(root, "selftest", NULL), 0);
    assert_int_equal(cgroup_destroy(root, "selftest", NULL), -ENOENT);
}

/* ---- files ---- */

static void test_files_are_read_whole(void **state)
{
    char text[8] = "";
    uint64_t value;

    (void)state;
    assert_int_equal(cgroup_read_value(group, "memory.current", &value, NULL), 0);
    assert_int_equal(value, 4096);
    fake_put("a/b", "x", "1234567");
    assert_int_equal(cgroup_read(group, "x", text, sizeof text, NULL), -EMSGSIZE);
    fake_put("a/b", "x", "123456");
    assert_int_equal(cgroup_read(group, "x", text, sizeof text, NULL), 0);
    assert_string_equal(text, "123456");
    fake_put("a/b", "x", "");
    assert_int_equal(cgroup_read(group, "x", text, sizeof text, NULL), 0);
    assert_string_equal(text, "");
    assert_int_equal(cgroup_read(group, "none", text, sizeof text, NULL), -ENOENT);
    assert_int_equal(cgroup_read_value(group, "x", &value, NULL), -EBADMSG);
}

static void test_nothing_is_made_by_a_write(void **state)
{
    (void)state;
    assert_int_equal(cgroup_write(group, "memory.high", "max", NULL), -ENOENT);
    assert_int_equal(access(full("a/b/memory.high"), F_OK), -1);
}

static void test_the_limit_of_swap_is_text(void **state)
{
    char text[SWAP_MAX_SIZE];

    (void)state;
    assert_int_equal(cgroup_read_swap_max(group, text, sizeof text, NULL), 0);
    assert_string_equal(text, "67108864");
    fake_put("a/b", "memory.swap.max", "max\n");
    assert_int_equal(cgroup_read_swap_max(group, text, sizeof text, NULL), 0);
    assert_string_equal(text, "max");
    fake_put("a/b", "memory.swap.max", "18446744073709551615\n");
    assert_int_equal(cgroup_read_swap_max(group, text, sizeof text, NULL), 0);
    fake_put("a/b", "memory.swap.max", "lots\n");
    assert_int_equal(cgroup_read_swap_max(group, text, sizeof text, NULL), -EBADMSG);
}

static void test_the_request_is_not_the_fact(void **state)
{
    struct kernfile_events events;
    bool requested;

    (void)state;
    assert_int_equal(cgroup_write_freeze(group, true, NULL), 0);
    assert_int_equal(cgroup_read_freeze(group, &requested, NULL), 0);
    assert_true(requested);
    assert_int_equal(cgroup_read_events(group, &events, NULL), 0);
    assert_false(events.frozen);
}

/* ---- children ---- */

struct walk {
    unsigned n, end_after;
};

static int count_child(int group_fd, const char *name, void *userdata)
{
    struct walk *walk = userdata;
    struct stat st;

    assert_int_equal(fstatat(group_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISDIR(st.st_mode));
    return ++walk->n == walk->end_after ? -EINTR : 0;
}

static void test_children_are_directories(void **state)
{
    struct walk walk = { 0 };

    (void)state;
    fake_group("a/b/c", "max", 0);
    fake_group("a/b/d", "max", 0);
    assert_int_equal(symlink("c", full("a/b/link")), 0);
    assert_int_equal(cgroup_for_each_child(group, count_child, &walk, NULL), 0);
    assert_int_equal(walk.n, 2);
    walk = (struct walk){ .end_after = 1 };
    assert_int_equal(cgroup_for_each_child(group, count_child, &walk, NULL), -EINTR);
    assert_int_equal(walk.n, 1);
}

/* ---- processes ---- */

static void put_pid(const char *path, pid_t pid)
{
    fake_put(path, "cgroup.procs", keep("%d\n", (int)pid));
}

static void test_a_sandbox_is_one_process_called_pause(void **state)
{
    pid_t sandbox = process_start("pause"), other = process_start("paused");

    (void)state;
    assert_false(cgroup_is_sandbox(group)); /* empty */
    put_pid("a/b", sandbox);
    assert_true(cgroup_is_sandbox(group));
    put_pid("a/b", other);
    assert_false(cgroup_is_sandbox(group));
    fake_put("a/b", "cgroup.procs", keep("%d\n%d\n", (int)sandbox, (int)other));
    assert_false(cgroup_is_sandbox(group));
    fake_put("a/b", "cgroup.procs", "0\n"); /* of another PID namespace */
    assert_false(cgroup_is_sandbox(group));
    process_end(sandbox);
    process_end(other);
    put_pid("a/b", sandbox);
    assert_false(cgroup_is_sandbox(group));
}

/* crun puts a container's processes, and those of the sandbox, into a group below. */
static void test_a_sandbox_may_live_in_a_group_below(void **state)
{
    pid_t sandbox = process_start("pause"), other = process_start("sh");

    (void)state;
    fake_group("a/b/container", "max", 0);
    put_pid("a/b/container", sandbox);
    assert_true(cgroup_is_sandbox(group));
    fake_group("a/b/exec", "max", 0);
    put_pid("a/b/exec", other);
    assert_false(cgroup_is_sandbox(group));
    process_end(sandbox);
    process_end(other);
}

static void test_the_first_process_is_the_groups_or_one_below(void **state)
{
    (void)state;
    assert_int_equal(cgroup_first_pid(group), 0);
    fake_group("a/b/c/d", "max", 0);
    fake_put("a/b/c/d", "cgroup.procs", "77\n78\n");
    assert_int_equal(cgroup_first_pid(group), 77);
    fake_put("a/b", "cgroup.procs", "5\n");
    assert_int_equal(cgroup_first_pid(group), 5);
}

static void test_processes_are_listed_with_those_below(void **state)
{
    pid_t pids[4] = { 0 };

    (void)state;
    assert_int_equal(cgroup_list_pids(group, pids, 4), 0);
    fake_put("a/b", "cgroup.procs", "5\n6\n");
    fake_group("a/b/c", "max", 0);
    fake_put("a/b/c", "cgroup.procs", "7\n8\n9\n");
    assert_int_equal(cgroup_list_pids(group, pids, 4), 4);
    assert_int_equal(pids[0], 5);
    assert_int_equal(pids[3], 8);
    assert_int_equal(cgroup_list_pids(group, pids, 1), 1);
}

static void test_the_agent_knows_its_own_group(void **state)
{
    (void)state;
    assert_false(cgroup_holds_self(group));
    fake_put("a/b", "cgroup.procs", keep("1\n%d\n", (int)getpid()));
    assert_true(cgroup_holds_self(group));
    fake_put("a/b", "cgroup.procs", keep("%d0\n1%d\n", (int)getpid(), (int)getpid()));
    assert_false(cgroup_holds_self(group));
}

/* ---- room ---- */

static void test_room_is_what_the_tightest_limit_leaves(void **state)
{
    (void)state;
    fake_put("a/b", "memory.max", "max\n");
    fake_put("a/b", "memory.high", "max\n");
    assert_true(cgroup_room(group) == KERNFILE_MAX);
    fake_put("a/b", "memory.current", keep("%llu\n", (unsigned long long)(100 * MIB)));
    fake_put("a/b", "memory.max", keep("%llu\n", (unsigned long long)(1000 * MIB)));
    uint64_t by_max = cgroup_room(group);
    assert_true(by_max > 0 && by_max < 900 * MIB);
    fake_put("a/b", "memory.high", keep("%llu\n", (unsigned long long)(500 * MIB)));
    uint64_t by_high = cgroup_room(group);
    assert_true(by_high > 0 && by_high < 400 * MIB);
    fake_group("a/b/c", "max", 100 * MIB);
    fake_put("a/b/c", "memory.max", keep("%llu\n", (unsigned long long)(101 * MIB)));
    assert_int_equal(cgroup_room(group), 0); /* not even the margin */
    assert_int_equal(cgroup_own_room(group), by_high);
}

/* ---- watches ---- */

static void test_writes_of_others_are_noticed(void **state)
{
    _Alignas(struct inotify_event) char buffer[1024];
    cleanup(close_p) int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct error error = ERROR_INIT;
    const struct inotify_event *event = (const struct inotify_event *)buffer;

    (void)state;
    int wd = cgroup_watch(inotify, group, NULL, IN_MODIFY | IN_ONLYDIR, NULL);
    assert_true(wd >= 0);
    fake_write("a/b", "cgroup.freeze", "1");
    assert_true(read(inotify, buffer, sizeof buffer) > 0);
    assert_int_equal(event->wd, wd);
    assert_string_equal(event->name, "cgroup.freeze");
    assert_true(cgroup_watch(inotify, group, "cgroup.events", IN_MODIFY, NULL) >= 0);
    assert_int_equal(cgroup_watch(inotify, group, "none", IN_MODIFY, &error), -ENOENT);
    assert_true(*error.msg);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_plain_directory_is_no_root),
        TEST(test_the_memory_controller_is_there_or_not),
        TEST(test_groups_are_opened_beneath_the_root),
        TEST(test_no_link_is_followed),
        TEST(test_a_group_made_anew_is_another),
        TEST(test_groups_are_made_and_destroyed),
        TEST(test_files_are_read_whole),
        TEST(test_nothing_is_made_by_a_write),
        TEST(test_the_limit_of_swap_is_text),
        TEST(test_the_request_is_not_the_fact),
        TEST(test_children_are_directories),
        TEST(test_a_sandbox_is_one_process_called_pause),
        TEST(test_a_sandbox_may_live_in_a_group_below),
        TEST(test_the_first_process_is_the_groups_or_one_below),
        TEST(test_processes_are_listed_with_those_below),
        TEST(test_the_agent_knows_its_own_group),
        TEST(test_room_is_what_the_tightest_limit_leaves),
        TEST(test_writes_of_others_are_noticed),
    };

    return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
