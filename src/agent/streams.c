#include "agent/streams.h"

#include <inttypes.h>
#include <string.h>

#include "agent/status.h"
#include "common/log.h"
#include "common/loop.h"

/* A piece of text that is on its way to the reader. */
struct piece {
    char *text;
    size_t len, sent;
};

static void piece_set(struct piece *piece, char *text)
{
    free(piece->text);
    *piece = (struct piece){ .text = text, .len = text ? strlen(text) : 0 };
}

static size_t piece_take(struct piece *piece, char *buffer, size_t size)
{
    size_t rest = piece->len - piece->sent;
    size_t n = rest < size ? rest : size;

    if (n > 0)
        memcpy(buffer, piece->text + piece->sent, n);
    piece->sent += n;
    return n;
}

/* ---- the statuses ---- */

struct statuses {
    struct freezer *freezer;
    struct piece piece;
    uint64_t cursor; /* serial of the last pod that was told */
    char uid[POD_UID_SIZE];
    enum { AT_START, AT_FIRST_POD, AT_PODS, AT_END } at;
};

static char *pod_text(struct statuses *statuses, const struct pod *pod)
{
    json_t *status = status_of(pod);
    char *json = status ? json_dumps(status, JSON_COMPACT) : NULL, *text = NULL;

    if (!json || asprintf(&text, "%s%s", statuses->at == AT_PODS ? "," : "", json) < 0)
        text = NULL;
    free(json);
    json_decref(status);
    return text;
}

static void next_piece(struct statuses *statuses)
{
    struct pod *pod;

    if (statuses->at == AT_START) {
        piece_set(&statuses->piece, strdup("{\"pods\":["));
        statuses->at = AT_FIRST_POD;
    } else if ((pod = freezer_after(statuses->freezer, statuses->uid, statuses->cursor))) {
        statuses->cursor = pod->serial;
        strcpy(statuses->uid, pod->cgroups.record.pod_uid);
        piece_set(&statuses->piece, pod_text(statuses, pod));
        statuses->at = AT_PODS;
    } else {
        piece_set(&statuses->piece, strdup("]}\n"));
        statuses->at = AT_END;
    }
}

static ssize_t next_statuses(void *data, char *buffer, size_t size)
{
    struct statuses *statuses = data;
    size_t n = piece_take(&statuses->piece, buffer, size);

    while (n == 0 && statuses->at != AT_END) {
        next_piece(statuses);
        n = piece_take(&statuses->piece, buffer, size);
    }
    return n > 0 ? (ssize_t)n : HTTP_STREAM_END;
}

static void close_statuses(void *data)
{
    struct statuses *statuses = data;

    free(statuses->piece.text);
    free(statuses);
}

void stream_statuses(struct http_request *request, struct freezer *freezer)
{
    static const struct http_stream_ops ops = { .next = next_statuses, .close = close_statuses };
    struct statuses *statuses = calloc(1, sizeof *statuses);

    if (!statuses) {
        http_reply_problem(request, 503, "busy", NULL, "out of memory");
        return;
    }
    statuses->freezer = freezer;
    http_reply_stream(request, "application/json", &ops, statuses, NULL);
}

/* ---- the events ---- */

struct follower {
    struct events_listener listener;
    struct events *events;
    struct http_stream *stream;
    sd_event *event;
    sd_event_source *heartbeat;
    bool beat;
    uint64_t cursor;
    struct piece piece;
};

static char *say(const struct follower *follower, const char *type, const char *key, json_t *value)
{
    char time[EVENTS_TIME_SIZE], *json, *line = NULL;
    json_t *object;

    events_format_time(events_now_usec(), time);
    object = json_pack("{ss ss ss sI}", "type", type, "epoch", events_epoch(follower->events),
                       "time", time, "seq", (json_int_t)follower->cursor);
    if (object && key)
        json_object_set_new(object, key, value);
    json = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (!json || asprintf(&line, "%s\n", json) < 0)
        line = NULL;
    free(json);
    json_decref(object);
    return line;
}

/* False when there is nothing to tell. */
static bool next_line(struct follower *follower)
{
    const char *line;
    uint64_t seq, missed;

    if (!events_next(follower->events, follower->cursor, &line, &seq, &missed)) {
        if (follower->beat)
            piece_set(&follower->piece, say(follower, "heartbeat", NULL, NULL));
        bool beat = follower->beat;
        follower->beat = false;
        return beat;
    }
    if (missed > 0) {
        follower->cursor = seq - 1;
        piece_set(&follower->piece,
                  say(follower, "lost", "missed", json_integer((json_int_t)missed)));
        return true;
    }
    follower->cursor = seq;
    piece_set(&follower->piece, strdup(line));
    return true;
}

static ssize_t next_events(void *data, char *buffer, size_t size)
{
    struct follower *follower = data;
    size_t n = piece_take(&follower->piece, buffer, size);

    while (n == 0 && next_line(follower))
        n = piece_take(&follower->piece, buffer, size);
    return n > 0 ? (ssize_t)n : HTTP_STREAM_WAIT;
}

static void close_events(void *data)
{
    struct follower *follower = data;

    events_unlisten(&follower->listener);
    sd_event_source_disable_unref(follower->heartbeat);
    free(follower->piece.text);
    free(follower);
}

static void on_event(struct events_listener *listener)
{
    struct follower *follower = container_of(listener, struct follower, listener);

    http_stream_wake(follower->stream);
}

static void set_heartbeat(struct follower *follower);

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct follower *follower = userdata;

    (void)source;
    (void)usec;
    follower->beat = true;
    http_stream_wake(follower->stream);
    set_heartbeat(follower);
    return 0;
}

static void set_heartbeat(struct follower *follower)
{
    if (loop_timer(follower->event, &follower->heartbeat, STREAM_HEARTBEAT_USEC, on_heartbeat,
                   follower) < 0)
        log_warning("no heartbeat for a reader of events, ignoring");
}

void stream_events(struct http_request *request, sd_event *event, struct events *events,
                   uint64_t since)
{
    static const struct http_stream_ops ops = { .next = next_events, .close = close_events };
    struct follower *follower = calloc(1, sizeof *follower);

    if (!follower) {
        http_reply_problem(request, 503, "busy", NULL, "out of memory");
        return;
    }
    follower->listener.on_event = on_event;
    follower->events = events;
    follower->event = event;
    follower->cursor = since < events_last(events) ? since : events_last(events);
    piece_set(&follower->piece, say(follower, "hello", NULL, NULL));
    struct http_stream *stream;
    http_reply_stream(request, "application/x-ndjson", &ops, follower, &stream);
    if (!stream)
        return;
    follower->stream = stream;
    events_listen(events, &follower->listener);
    set_heartbeat(follower);
}
