/* An HTTP/1.1 server in the loop: libmicrohttpd without threads of its own.
 *
 * Each listener is one MHD daemon whose epoll fd is a source in our loop; its timeout is honoured
 * (MHD_get_timeout returns 0 while it has ready connections, and the inner fd alone would not
 * tell), and MHD_run is called each round.
 *
 * Routes are declared. Before a handler runs, the server has checked: the headers (well-formed,
 * each that matters at most once, never both framings: the packaged libmicrohttpd versions accept
 * these; RFC 9112, 6.3 and 3.2), method and path, who the caller is, the body's type and size, and
 * has decoded body or query by the route's table. A handler gets a filled struct. HEAD is answered
 * like GET. A path with a percent escape is not found: none of ours needs one, and a filter in
 * front of us may not read them.
 *
 * A handler answers at once, or keeps `struct http_request *` and answers later: the request is
 * then suspended, and `deadline_usec` bounds it (the route's on_deadline answers, and if that
 * does not, the server does with 503 `deadline`). Every request is answered exactly once; after
 * http_reply_* the pointer is dead. That a caller has gone is not noticed while it waits.
 *
 * Errors are application/problem+json (RFC 9457): {"type": "about:blank", "title", "status",
 * "code", "detail"} and what the caller adds. The server's own codes: bad_request (400),
 * unauthorized (401, with WWW-Authenticate), forbidden (403), not_found (404), method_not_allowed
 * (405, with Allow), payload_too_large (413), unsupported_media_type (415: a body that is declared
 * as something else than JSON; a missing Content-Type is taken as JSON, and so is what curl calls a
 * form, unless a browser sends it, which tells by its Origin), headers_too_large (431),
 * internal_error (500: no memory to decode), unavailable, deadline, too_many_streams (503). What
 * libmicrohttpd refuses by itself, because it cannot parse it or because it is larger than its
 * buffer (400, 413, 431, 505), has a short HTML body instead, and on_answered does not hear of it.
 *
 * What is refused before a handler has seen it ends the connection (`Connection: close`), except
 * for a body or query that is only wrong in its fields. A refusal waits for the end of a body
 * within the limit, so that its sender gets to read it (RFC 9112, 9.6); one beyond the limit is
 * refused at once when its length is declared, and after a while when it is chunked.
 *
 * Newcomers always get in: beyond connections_max the oldest connection without a whole request is
 * shut down, then the oldest that does not take its answer. A request that is not complete
 * idle_timeout_sec after the connection's beginning, or after the answer before it, is cut off
 * without an answer: libmicrohttpd cannot give one in the middle of a request. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include <jansson.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/schema.h"

struct http_server;
struct http_request;

enum http_method { HTTP_GET, HTTP_POST };

/* What a route asks of its caller. */
enum http_access {
    HTTP_ACCESS_PUBLIC, /* anybody: health only */
    HTTP_ACCESS_READ,
    HTTP_ACCESS_WRITE,
};

/* Who is calling, as far as the connection tells. */
struct http_caller {
    bool local;        /* Unix socket: uid is the kernel's word (SO_PEERCRED, unix(7)) */
    bool loopback;     /* TCP from 127.0.0.0/8 or ::1 */
    uid_t uid;         /* when local */
    const char *token; /* of "Authorization: Bearer …", NULL without; dies with the call */
    int fd;            /* the connection's socket, for those who ask the kernel for more */
};

enum http_verdict {
    HTTP_ALLOW,
    HTTP_UNAUTHORIZED, /* 401: say who you are */
    HTTP_FORBIDDEN,    /* 403: known, and not allowed */
};

struct http_route {
    enum http_method method;
    const char *path; /* matched exactly */
    enum http_access access;
    const struct schema_field *fields; /* POST: of the JSON body; GET: of the query */
    size_t n_fields;
    size_t args_size;             /* of the struct that fields fill; at most HTTP_ARGS_MAX */
    void (*defaults)(void *args); /* NULL: zeroes */
    void (*handle)(struct http_request *request, const void *args, void *userdata);
};

#define HTTP_ARGS_MAX 1024

struct http_config {
    const struct http_route *routes;
    size_t n_routes;
    void *userdata; /* of the handlers and of authorize */
    /* Called for READ and WRITE routes before the body is read. Required. */
    enum http_verdict (*authorize)(const struct http_caller *caller, enum http_access access,
                                   void *userdata);
    /* Called once for every request when its answer is made: for metrics and the access log. path
     * is the route's, or NULL when none matched (what a caller sent never becomes a label). usec
     * is from the request line to there. May be NULL. */
    void (*on_answered)(const char *path, unsigned status, uint64_t usec, void *userdata);
    size_t body_max;           /* bytes */
    unsigned connections_max;  /* per listener, 1 or more */
    unsigned idle_timeout_sec; /* 1 or more: to send a request, and to take any byte of an answer */
    unsigned streams_max;      /* of all listeners together */
};

/* The routes and userdata must outlive the server. */
int http_server_open(struct http_server **ret, sd_event *event, const struct http_config *config,
                     struct error *error) MUST_CHECK;

/* Answers what is suspended with 503, closes every connection and, with ops->close, every stream.
 * Who holds a request is not told: forget the pointers. Not from within a handler or a stream's
 * callback. NULL-safe, returns NULL. */
struct http_server *http_server_close(struct http_server *server);

/* "127.0.0.1:9696", "[::1]:9696", "localhost:9696" (which is 127.0.0.1), ":9696" (every address, of
 * IPv6 too where there is IPv6). Port 0 lets the kernel choose. */
int http_server_listen_tcp(struct http_server *server, const char *address,
                           struct error *error) MUST_CHECK;
/* A stale socket is replaced; a live one (somebody accepts) and what is no socket is -EADDRINUSE.
 * The file has `mode` whatever the umask, never more, and is removed at the end. */
int http_server_listen_unix(struct http_server *server, const char *path, mode_t mode,
                            struct error *error) MUST_CHECK;
/* The port of the index-th TCP listener, as the kernel chose it. */
unsigned http_server_port(const struct http_server *server, unsigned index);

/* Is "HOST:PORT" a loopback address literal (127.0.0.0/8, [::1], or the name localhost)? */
bool http_address_is_loopback(const char *address);

/* ---- requests ---- */

/* Keeps the request for later; only from its handler. `deadline_usec` is counted from now.
 * on_deadline is called on the loop when the time is over and the request has not been answered; it
 * must answer. NULL: 503 `deadline`. */
void http_request_hold(struct http_request *request, uint64_t deadline_usec,
                       void (*on_deadline)(struct http_request *request, void *userdata),
                       void *userdata);

/* Takes the reference to `body`. */
void http_reply_json(struct http_request *request, unsigned status, json_t *body);

/* `members` (may be NULL; reference taken) are added to the problem. */
void http_reply_problem(struct http_request *request, unsigned status, const char *code,
                        json_t *members, const char *fmt, ...) PRINTF(5, 6);

/* Takes `text` (malloc'ed). */
void http_reply_text(struct http_request *request, unsigned status, const char *content_type,
                     char *text, size_t len);

/* ---- streams ----
 *
 * A body made piece by piece, as the reader takes it: a slow reader holds no memory of ours beyond
 * its connection's buffer, and a long answer never holds up the loop. A reader that takes nothing
 * for idle_timeout_sec is cut off. That a reader has gone is noticed when something is written: a
 * stream that can be silent for long writes a heartbeat now and then. */

#define HTTP_STREAM_END  (-1)
#define HTTP_STREAM_WAIT 0 /* nothing now: http_stream_wake when there is */

struct http_stream;

struct http_stream_ops {
    /* Writes at most `size` bytes (4 KiB or more) and returns how many, or one of the above. Any
     * other negative value cuts the connection off, so that the reader knows of the failure. */
    ssize_t (*next)(void *stream_data, char *buffer, size_t size);
    /* The reader has gone or the stream has ended; the last call, exactly once. After it the
     * struct http_stream is gone. */
    void (*close)(void *stream_data);
};

/* Answers 200 with a stream (chunked). 503 `too_many_streams` when there are streams_max already
 * (ops->close is then called, and *ret is NULL). ret may be NULL. */
void http_reply_stream(struct http_request *request, const char *content_type,
                       const struct http_stream_ops *ops, void *stream_data,
                       struct http_stream **ret);

/* `next` has something again. Cheap, and harmless when the stream was not waiting. */
void http_stream_wake(struct http_stream *stream);
