/* What happened on this node: a ring of events, each a line of JSON with a number.
 *
 * Readers keep a cursor (the number of the last event they had) and ask for the next; a reader that
 * falls out of the ring is told how many it missed. The epoch names this run of the agent: numbers
 * begin anew with it. Loop thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "common/error.h"

struct events;

struct events_listener {
    void (*on_event)(struct events_listener *listener);
    struct events_listener *next, **link; /* the ring's */
};

int events_open(struct events **ret, unsigned capacity, struct error *error) MUST_CHECK;
struct events *events_close(struct events *events);

const char *events_epoch(const struct events *events);
/* Number of the newest event, 0 when there was none. */
uint64_t events_last(const struct events *events);

/* Adds "seq" and "time" to the object, keeps its text, calls the listeners. Takes the reference.
 * Without memory the event is lost, and readers are told so. */
void events_emit(struct events *events, json_t *event);

/* The event after `cursor`: its line (with the newline, valid until the next emit), and how many
 * before it are no longer there. False when there is none yet. */
bool events_next(const struct events *events, uint64_t cursor, const char **ret_line,
                 uint64_t *ret_seq, uint64_t *ret_missed);

void events_listen(struct events *events, struct events_listener *listener);
void events_unlisten(struct events_listener *listener);

/* RFC 3339, UTC, milliseconds: "2026-01-02T03:04:05.678Z". */
#define EVENTS_TIME_SIZE 32
void events_format_time(uint64_t realtime_usec, char ret[static EVENTS_TIME_SIZE]);
uint64_t events_now_usec(void);
