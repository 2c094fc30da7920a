#include "agent/watch.h"

#include <stdarg.h>
#include <string.h>
#include <sys/inotify.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/transition.h"
#include "common/loop.h"
#include "fake_calls.h"
#include "node.h"

/* ---- calls of the watcher ----
 *
 * No watch can be had, the queue overflows, and a slice of the sweep ends after one pod: as a test
 * wants it. A sweep that is due in a minute is held until the test lets it go. */

static bool no_watches;
static bool overflows;    /* the next read */
static bool short_slices; /* each look takes a second */
static uint64_t now;      /* which stands still: a slice has no end by itself */
static unsigned looks;

static struct {
    sd_event *event;
    sd_event_source **source;
    sd_event_time_handler_t callback;
    void *userdata;
    unsigned full;   /* sweeps that have begun to wait for the next */
    unsigned pauses; /* between two slices */
} sweep;

int __real_inotify_add_watch(int fd, const char *path, uint32_t mask);
int __wrap_inotify_add_watch(int fd, const char *path, uint32_t mask);
ssize_t __real_read(int fd, void *buffer, size_t size);
ssize_t __wrap_read(int fd, void *buffer, size_t size);
uint64_t __real_loop_now_usec(void);
uint64_t __wrap_loop_now_usec(void);
void __real_transition_check(struct pod *pod);
void __wrap_transition_check(struct pod *pod);
int __real_loop_timer(sd_event *event, sd_event_source **source, uint64_t usec,
                      sd_event_time_handler_t callback, void *userdata);
int __wrap_loop_timer(sd_event *event, sd_event_source **source, uint64_t usec,
                      sd_event_time_handler_t callback, void *userdata);

int __wrap_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    errno = ENOSPC;
    return no_watches ? -1 : __real_inotify_add_watch(fd, path, mask);
}

ssize_t __wrap_read(int fd, void *buffer, size_t size)
{
    const struct inotify_event event = { .wd = -1, .mask = IN_Q_OVERFLOW };
    ssize_t n = __real_read(fd, buffer, size);

    if (!overflows || size != 8192) /* which is the watcher's */
        return n;
    overflows = false;
    memcpy(buffer, &event, sizeof event);
    return sizeof event;
}

uint64_t __wrap_loop_now_usec(void)
{
    return now;
}

void __wrap_transition_check(struct pod *pod)
{
    looks++;
    if (short_slices)
        now += USEC_PER_SEC;
    __real_transition_check(pod);
}

/* The watcher's timer is known by the time that it is first set to. */
int __wrap_loop_timer(sd_event *event, sd_event_source **source, uint64_t usec,
                      sd_event_time_handler_t callback, void *userdata)
{
    if (usec == WATCH_SWEEP_USEC) {
        sweep.event = event;
        sweep.source = source;
        sweep.callback = callback;
        sweep.userdata = userdata;
        sweep.full++;
    } else if (source == sweep.source && usec == WATCH_SWEEP_BLIND_USEC) {
        sweep.full++;
    } else if (source == sweep.source && usec > 0) {
        sweep.pauses++;
        usec = WATCH_SWEEP_USEC; /* until the test lets it go on */
    }
    return __real_loop_timer(event, source, usec, callback, userdata);
}

static void let_sweep(void)
{
    unsigned before = sweep.full + sweep.pauses;

    assert_int_equal(
        __real_loop_timer(sweep.event, sweep.source, 0, sweep.callback, sweep.userdata), 0);
    while (sweep.full + sweep.pauses == before)
        assert_true(sd_event_run(sweep.event, UINT64_MAX) >= 0);
}

/* ---- the bench ---- */

static struct node *node;

static int setup(void **state)
{
    (void)state;
    no_watches = overflows = short_slices = false;
    sweep.full = sweep.pauses = 0;
    now = __real_loop_now_usec();
    node = node_open(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    node = node_close(node);
    return 0;
}

static void freeze_pods(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pod_make(i, 1);
        assert_int_equal(freeze(node, i), 0);
    }
    http_settle(node->event); /* the notifications of our own writes */
    looks = 0;
}

static void set_back(unsigned i)
{
    fake_write(container_path(i, 0), "memory.swap.max", "0");
}

static bool is_healed(unsigned i)
{
    return strcmp(fake_read(container_path(i, 0), "memory.swap.max"), "max\n") == 0;
}

/* ---- tests ---- */

static void test_only_the_pod_that_was_touched_is_looked_at(void **state)
{
    (void)state;
    freeze_pods(3);
    set_back(1);
    AWAIT(node, is_healed(1));
    http_settle(node->event);
    assert_true(looks >= 1 && looks <= 2); /* for the write, and for ours that healed it */
}

static void test_what_does_not_matter_is_not_looked_at(void **state)
{
    (void)state;
    freeze_pods(1);
    fake_put(container_path(0, 0), "memory.current", "4096\n");
    fake_put(container_path(0, 0), "memory.high", "max\n");
    http_settle(node->event);
    assert_int_equal(looks, 0);
}

static void test_a_thawed_pod_is_not_watched(void **state)
{
    (void)state;
    freeze_pods(1);
    assert_int_equal(thaw(node, 0), 0);
    AWAIT(node, !find_pod(node, 0));
    http_settle(node->event);
    looks = 0;
    fake_write(container_path(0, 0), "memory.swap.max", "4096");
    fake_write(container_path(0, 0), "cgroup.freeze", "1");
    http_settle(node->event);
    assert_int_equal(looks, 0);
}

static void test_without_watches_the_sweep_notices(void **state)
{
    (void)state;
    no_watches = true;
    freeze_pods(3);
    set_back(2);
    http_settle(node->event);
    assert_false(is_healed(2));
    let_sweep();
    assert_true(is_healed(2));
    assert_int_equal(looks, 3);
}

static void test_a_queue_that_overflows_begins_a_sweep(void **state)
{
    (void)state;
    freeze_pods(3);
    overflows = true;
    set_back(2); /* the notification of which is lost */
    AWAIT(node, is_healed(2));
}

static void test_a_sweep_rests_between_slices(void **state)
{
    (void)state;
    no_watches = true;
    freeze_pods(4);
    short_slices = true;
    set_back(3);
    for (unsigned slice = 1; slice <= 3; slice++) {
        let_sweep();
        assert_int_equal(looks, slice);
    }
    assert_int_equal(sweep.pauses, 3);
    assert_false(is_healed(3));
    let_sweep();
    assert_true(is_healed(3));
    let_sweep(); /* the next begins at the first again */
    assert_int_equal(looks, 5);
}

/* Whichever pods go in the meantime, the others are looked at once. */
static void test_a_sweep_goes_on_when_a_pod_goes(void **state)
{
    (void)state;
    no_watches = true;
    freeze_pods(5);
    short_slices = true;
    let_sweep();
    let_sweep(); /* 0 and 1 were looked at */
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(thaw(node, i), 0);
        AWAIT(node, !find_pod(node, i));
    }
    looks = 0;
    set_back(4);
    let_sweep();
    let_sweep();
    assert_int_equal(looks, 2);
    assert_true(is_healed(4));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_only_the_pod_that_was_touched_is_looked_at),
        TEST(test_what_does_not_matter_is_not_looked_at),
        TEST(test_a_thawed_pod_is_not_watched),
        TEST(test_without_watches_the_sweep_notices),
        TEST(test_a_queue_that_overflows_begins_a_sweep),
        TEST(test_a_sweep_rests_between_slices),
        TEST(test_a_sweep_goes_on_when_a_pod_goes),
    };

    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
