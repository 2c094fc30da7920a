#include "common/loop.h"

#include <signal.h>
#include <stdbool.h>
#include <time.h>

static void unref_event_p(sd_event **event)
{
    *event = sd_event_unref(*event);
}

static int watch_signals(sd_event *event, struct error *error)
{
    static const int exiting[] = { SIGTERM, SIGINT };
    sigset_t mask;

    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(exiting); i++)
        sigaddset(&mask, exiting[i]);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return error_set(error, errno, "block signals");

    for (size_t i = 0; i < ARRAY_SIZE(exiting); i++) {
        /* Without a callback a signal ends the loop with the userdata, 0, as its code. */
        int r = sd_event_add_signal(event, NULL, exiting[i], NULL, NULL);
        if (r < 0)
            return error_set(error, -r, "watch signal %d", exiting[i]);
    }
    return 0;
}

int loop_open(sd_event **ret, struct error *error)
{
    cleanup(unref_event_p) sd_event *event = NULL;

    int r = sd_event_new(&event);
    if (r < 0)
        return error_set(error, -r, "open the event loop");

    r = watch_signals(event, error);
    if (r < 0)
        return r;
    signal(SIGPIPE, SIG_IGN);

    r = sd_event_set_watchdog(event, true);
    if (r < 0)
        return error_set(error, -r, "start the watchdog");

    *ret = TAKE_PTR(event);
    return 0;
}

sd_event *loop_close(sd_event *event)
{
    return sd_event_unref(event);
}

static int move_timer(sd_event_source *source, uint64_t at)
{
    int r = sd_event_source_set_time(source, at);
    if (r < 0)
        return r;
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int loop_timer(sd_event *event, sd_event_source **source, uint64_t usec,
               sd_event_time_handler_t callback, void *userdata)
{
    uint64_t at;

    /* Not sd_event_now(): that is when this round began, and a round may have lasted. */
    if (__builtin_add_overflow(loop_now_usec(), usec, &at))
        at = UINT64_MAX;

    if (*source)
        return move_timer(*source, at);

    int r = sd_event_add_time(event, source, CLOCK_MONOTONIC, at, LOOP_ACCURACY_USEC, callback,
                              userdata);
    return r < 0 ? r : 0;
}

void loop_timer_stop(sd_event_source *source)
{
    if (source)
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

uint64_t loop_now_usec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / NSEC_PER_USEC;
}
