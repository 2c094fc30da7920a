/* Answers that are made piece by piece: every pod's status, and the events as they come. Neither
 * holds up the loop, nor more than one piece of memory per reader. */
#pragma once

#include "agent/events.h"
#include "agent/freezer.h"
#include "common/http.h"

/* {"pods": [status…]} of every pod in the table. A pod that comes or goes while the answer is on
 * its way may be in it or not. */
void stream_statuses(struct http_request *request, struct freezer *freezer);

/* JSON lines: {"type": "hello", "epoch", "seq", "time"}, then every event after `since` that is
 * still in the ring, then what comes. A reader that is too slow gets {"type": "lost", "missed"} in
 * place of what fell out of the ring, one that hears nothing a {"type": "heartbeat"} now and then
 * (and we learn so that it has gone). */
#define STREAM_HEARTBEAT_USEC (15 * USEC_PER_SEC)
void stream_events(struct http_request *request, sd_event *event, struct events *events,
                   uint64_t since);
