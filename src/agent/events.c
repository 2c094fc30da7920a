#include "agent/events.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include <systemd/sd-id128.h>

struct events {
    char epoch[SD_ID128_STRING_MAX];
    uint64_t last;
    unsigned capacity;
    struct events_listener *listeners;
    char *lines[]; /* of event n at n % capacity */
};

int events_open(struct events **ret, unsigned capacity, struct error *error)
{
    struct events *events = calloc(1, sizeof *events + capacity * sizeof events->lines[0]);
    sd_id128_t epoch;

    if (!events)
        return error_set(error, ENOMEM, "open the event ring");
    int r = sd_id128_randomize(&epoch);
    if (r < 0) {
        free(events);
        return error_set(error, -r, "open the event ring");
    }
    sd_id128_to_string(epoch, events->epoch);
    events->capacity = capacity;
    *ret = events;
    return 0;
}

struct events *events_close(struct events *events)
{
    if (events)
        for (unsigned i = 0; i < events->capacity; i++)
            free(events->lines[i]);
    free(events);
    return NULL;
}

const char *events_epoch(const struct events *events)
{
    return events->epoch;
}

uint64_t events_last(const struct events *events)
{
    return events->last;
}

uint64_t events_now_usec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / NSEC_PER_USEC;
}

void events_format_time(uint64_t realtime_usec, char ret[static EVENTS_TIME_SIZE])
{
    time_t seconds = (time_t)(realtime_usec / USEC_PER_SEC);
    unsigned msec = (unsigned)(realtime_usec % USEC_PER_SEC / USEC_PER_MSEC);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    size_t n = strftime(ret, EVENTS_TIME_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, EVENTS_TIME_SIZE - n, ".%03uZ", msec);
}

/* {"seq", "time", and then what the event brings}, so that a person finds the number first. */
static char *to_line(uint64_t seq, json_t *event)
{
    char time[EVENTS_TIME_SIZE], *line = NULL;
    json_t *full;

    events_format_time(events_now_usec(), time);
    full = json_pack("{sI ss}", "seq", (json_int_t)seq, "time", time);
    char *text = full && json_object_update_missing(full, event) == 0
                     ? json_dumps(full, JSON_COMPACT)
                     : NULL;
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    json_decref(full);
    return line;
}

void events_emit(struct events *events, json_t *event)
{
    char **slot = &events->lines[++events->last % events->capacity];

    free(*slot);
    *slot = to_line(events->last, event);
    json_decref(event);
    for (struct events_listener *l = events->listeners, *next; l; l = next) {
        next = l->next;
        l->on_event(l);
    }
}

bool events_next(const struct events *events, uint64_t cursor, const char **ret_line,
                 uint64_t *ret_seq, uint64_t *ret_missed)
{
    uint64_t oldest = events->last > events->capacity ? events->last - events->capacity + 1 : 1;
    uint64_t seq = cursor + 1 < oldest ? oldest : cursor + 1;

    while (seq <= events->last && !events->lines[seq % events->capacity])
        seq++;
    if (seq > events->last)
        return false;
    *ret_line = events->lines[seq % events->capacity];
    *ret_seq = seq;
    *ret_missed = seq - cursor - 1;
    return true;
}

void events_listen(struct events *events, struct events_listener *listener)
{
    listener->next = events->listeners;
    listener->link = &events->listeners;
    if (listener->next)
        listener->next->link = &listener->next;
    events->listeners = listener;
}

void events_unlisten(struct events_listener *listener)
{
    if (!listener->link)
        return;
    *listener->link = listener->next;
    if (listener->next)
        listener->next->link = listener->link;
    listener->link = NULL;
}
