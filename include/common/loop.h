/* The event loop: sd-event, opened with the process-wide settings that every daemon of ours needs.
 *
 * Rules for callbacks, written down once:
 *  - Never block. What can block in the kernel goes to a worker pool (common/worker.h).
 *  - A callback may remove, disable or add any event source, its own included.
 *  - An event source is embedded in (owned by) the object that it serves; the object disables and
 *    unrefs it in its close function. The callback's userdata is that object.
 *  - Return 0. A negative return value disables the source (sd-event's rule), so a callback that
 *    cannot go on says so in the log and decides itself what that means.
 *  - Timers give an accuracy; 0 would mean sd-event's default of 250 ms. Use LOOP_ACCURACY_USEC.
 *
 * Source: sd-event(3), sd_event_add_time(3). */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"

#define LOOP_ACCURACY_USEC 1

/* Opens a loop in which SIGTERM and SIGINT end sd_event_loop() with 0, SIGPIPE is ignored, and the
 * watchdog of the service manager is fed when WATCHDOG_USEC asks for it (sd_event_set_watchdog(3)).
 * Blocks SIGTERM, SIGINT in the calling thread: call it before any thread is made. */
int loop_open(sd_event **ret, struct error *error) MUST_CHECK;

/* NULL-safe, returns NULL. */
sd_event *loop_close(sd_event *event);

/* Arms `*source` (made on first use) to fire `callback` once, `usec` microseconds from now
 * (CLOCK_MONOTONIC). Arming an armed timer moves it; callback and userdata stay those of the first
 * time. Disarm with loop_timer_stop (NULL-safe). */
int loop_timer(sd_event *event, sd_event_source **source, uint64_t usec,
               sd_event_time_handler_t callback, void *userdata) MUST_CHECK;
void loop_timer_stop(sd_event_source *source);

/* Microseconds on CLOCK_MONOTONIC. */
uint64_t loop_now_usec(void);
