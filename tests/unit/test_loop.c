#include "common/loop.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <setjmp.h>

#include <cmocka.h>

/* A test that hangs shall fail. */
#define PATIENCE_SEC 20

static int open_loop(void **state)
{
    sd_event *event;

    alarm(PATIENCE_SEC);
    if (loop_open(&event, NULL) < 0)
        return -1;
    *state = event;
    return 0;
}

static int close_loop(void **state)
{
    *state = loop_close(*state);
    alarm(0);
    return *state ? -1 : 0;
}

static void test_close_takes_null(void **state)
{
    (void)state;
    assert_null(loop_close(NULL));
    loop_timer_stop(NULL);
}

static void test_sigterm_ends_the_loop(void **state)
{
    raise(SIGTERM); /* blocked: it waits for the loop */
    assert_int_equal(sd_event_loop(*state), 0);
}

static void test_sigint_ends_the_loop(void **state)
{
    raise(SIGINT);
    assert_int_equal(sd_event_loop(*state), 0);
}

static void test_signals_stay_blocked_after_close(void **state)
{
    sigset_t mask;

    (void)state;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    assert_true(sigismember(&mask, SIGTERM));
    assert_true(sigismember(&mask, SIGINT));
}

static void test_sigpipe_is_ignored(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(fds[1]);
}

/* ---- timers ---- */

struct shot {
    uint64_t at;
    unsigned n;
    sd_event *event;
    sd_event_source *timer;
};

static int on_shot(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct shot *shot = userdata;

    (void)usec;
    shot->at = loop_now_usec();
    shot->n++;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

static void test_timer_fires_once_and_not_early(void **state)
{
    struct shot shot = { 0 };
    uint64_t start = loop_now_usec();

    assert_int_equal(loop_timer(*state, &shot.timer, 3000, on_shot, &shot), 0);
    assert_int_equal(sd_event_loop(*state), 0);
    assert_int_equal(shot.n, 1);
    assert_true(shot.at >= start + 3000);

    int enabled;
    assert_int_equal(sd_event_source_get_enabled(shot.timer, &enabled), 0);
    assert_int_equal(enabled, SD_EVENT_OFF);
    sd_event_source_disable_unref(shot.timer);
}

static void test_arming_again_moves_the_timer(void **state)
{
    struct shot shot = { 0 };
    uint64_t at, before = loop_now_usec();

    assert_int_equal(loop_timer(*state, &shot.timer, 3600 * USEC_PER_SEC, on_shot, &shot), 0);
    sd_event_source *first = shot.timer;
    assert_int_equal(loop_timer(*state, &shot.timer, 2000, on_shot, &shot), 0);
    assert_ptr_equal(shot.timer, first);
    assert_int_equal(sd_event_source_get_time(shot.timer, &at), 0);
    assert_in_range(at, before + 2000, loop_now_usec() + 2000);

    assert_int_equal(sd_event_loop(*state), 0);
    assert_int_equal(shot.n, 1);
    sd_event_source_disable_unref(shot.timer);
}

static void test_a_stopped_timer_is_silent(void **state)
{
    struct shot stopped = { 0 }, later = { 0 };

    assert_int_equal(loop_timer(*state, &stopped.timer, 0, on_shot, &stopped), 0);
    loop_timer_stop(stopped.timer);
    assert_int_equal(loop_timer(*state, &later.timer, 1000, on_shot, &later), 0);
    assert_int_equal(sd_event_loop(*state), 0);
    assert_int_equal(stopped.n, 0);
    assert_int_equal(later.n, 1);
    sd_event_source_disable_unref(stopped.timer);
    sd_event_source_disable_unref(later.timer);
}

static int rearm(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct shot *shot = userdata;

    (void)source;
    (void)usec;
    if (++shot->n == 3)
        return sd_event_exit(shot->event, 0);
    return loop_timer(shot->event, &shot->timer, 0, rearm, shot);
}

static void test_a_callback_may_arm_its_own_timer(void **state)
{
    struct shot shot = { .event = *state };

    assert_int_equal(loop_timer(*state, &shot.timer, 0, rearm, &shot), 0);
    assert_int_equal(sd_event_loop(*state), 0);
    assert_int_equal(shot.n, 3);
    sd_event_source_disable_unref(shot.timer);
}

static void test_a_time_beyond_all_times_is_never(void **state)
{
    struct shot never = { 0 }, later = { 0 };

    assert_int_equal(loop_timer(*state, &never.timer, UINT64_MAX, on_shot, &never), 0);
    assert_int_equal(loop_timer(*state, &later.timer, 1000, on_shot, &later), 0);
    assert_int_equal(sd_event_loop(*state), 0);
    assert_int_equal(never.n, 0);
    sd_event_source_disable_unref(never.timer);
    sd_event_source_disable_unref(later.timer);
}

static void test_the_clock_does_not_go_back(void **state)
{
    (void)state;
    uint64_t a = loop_now_usec();
    uint64_t b = loop_now_usec();
    assert_true(a > 0 && b >= a);
}

/* ---- watchdog ---- */

static int on_notify(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    char text[64] = "";

    (void)events;
    if (recv(fd, text, sizeof(text) - 1, 0) > 0 && strstr(text, "WATCHDOG=1"))
        ++*(unsigned *)userdata;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int bind_notify_socket(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t len = sizeof(address);
    char name[128];

    /* Only the family: the kernel picks an abstract name, unix(7). */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address.sun_family)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(name, sizeof(name), "@%.*s", (int)(len - sizeof(address.sun_family) - 1),
             address.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void test_the_watchdog_is_fed(void **state)
{
    unsigned fed = 0;
    sd_event *event;
    sd_event_source *source;

    (void)state;
    alarm(PATIENCE_SEC);
    cleanup(close_p) int fd = bind_notify_socket();
    setenv("WATCHDOG_USEC", "50000", 1);
    assert_int_equal(loop_open(&event, NULL), 0);
    assert_true(sd_event_get_watchdog(event) > 0);
    assert_true(sd_event_add_io(event, &source, fd, EPOLLIN, on_notify, &fed) >= 0);
    assert_int_equal(sd_event_loop(event), 0);
    assert_int_equal(fed, 1);

    sd_event_source_disable_unref(source);
    loop_close(event);
    unsetenv("WATCHDOG_USEC");
    unsetenv("NOTIFY_SOCKET");
    alarm(0);
}

static void test_a_bad_watchdog_is_said(void **state)
{
    struct error error = ERROR_INIT;
    sd_event *event = NULL;

    (void)state;
    setenv("WATCHDOG_USEC", "soon", 1);
    assert_true(loop_open(&event, &error) < 0);
    assert_null(event);
    assert_non_null(strstr(error.msg, "watchdog"));
    unsetenv("WATCHDOG_USEC");
}

#define in_loop(test) cmocka_unit_test_setup_teardown(test, open_loop, close_loop)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_close_takes_null),
        in_loop(test_sigterm_ends_the_loop),
        in_loop(test_sigint_ends_the_loop),
        cmocka_unit_test(test_signals_stay_blocked_after_close),
        in_loop(test_sigpipe_is_ignored),
        in_loop(test_timer_fires_once_and_not_early),
        in_loop(test_arming_again_moves_the_timer),
        in_loop(test_a_stopped_timer_is_silent),
        in_loop(test_a_callback_may_arm_its_own_timer),
        in_loop(test_a_time_beyond_all_times_is_never),
        cmocka_unit_test(test_the_clock_does_not_go_back),
        cmocka_unit_test(test_the_watchdog_is_fed),
        cmocka_unit_test(test_a_bad_watchdog_is_said),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
