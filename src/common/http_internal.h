/* What the files of the HTTP server share.
 *
 * http_server.c   listeners, connections, the loop: who may connect and for how long
 * http_socket.c   addresses and listening sockets
 * http_request.c  one request: the checks, the body, the handler
 * http_reply.c    the answer: JSON, problems, text, streams
 *
 * Ownership: server > listener > connection > request > response. libmicrohttpd tells when a
 * connection and a request begin and end; everything hangs on these four calls. */
#pragma once

#include <sys/queue.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "common/http.h"

/* Newcomers that are left alone even when every place is taken by requests that wait: between a
 * connection's beginning and the reading of its request libmicrohttpd accepts up to 22 others. */
#define HTTP_NEWCOMERS_MIN 32

/* On top of connections_max for libmicrohttpd's own limit: these newcomers, and connections that
 * were shut down, until it has seen their end. */
#define HTTP_CONNECTIONS_SPARE (2 * HTTP_NEWCOMERS_MIN)

/* Per connection: headers, what they are parsed into, and the answer's buffer. */
#define HTTP_CONNECTION_MEMORY ((size_t)32 * 1024)

/* Of one request. What they leave of the memory above is what a stream writes into. */
#define HTTP_HEADERS_MAX      64
#define HTTP_HEADERS_MAX_SIZE ((size_t)8 * 1024)

/* A body past its limit is read on for so long, so that its sender gets to read the answer: to
 * close a socket with unread data resets it (RFC 9112, 9.6). */
#define HTTP_DRAIN_MAX ((size_t)64 * 1024)

TAILQ_HEAD(http_connections, http_connection);
TAILQ_HEAD(http_requests, http_request);
TAILQ_HEAD(http_streams, http_stream);
STAILQ_HEAD(http_listeners, http_listener);

struct http_server {
    struct http_config config;
    sd_event *event;
    struct http_listeners listeners;
    struct http_requests held; /* the next deadline first */
    sd_event_source *deadline; /* of the first of them */
    struct http_streams streams;
    unsigned n_streams;
    bool closing;
};

struct http_listener {
    STAILQ_ENTRY(http_listener) link;
    struct http_server *server;
    struct MHD_Daemon *daemon;
    sd_event_source *readable; /* libmicrohttpd's epoll fd */
    sd_event_source *turn;     /* it has more to do, now */
    sd_event_source *timeout;  /* it has more to do, then */
    uint64_t timeout_at;       /* 0: not armed */

    struct http_connections receiving; /* no whole request yet; the oldest first */
    struct http_connections answering; /* an answer is on its way; the oldest first */
    unsigned n_listed;                 /* in these two */
    unsigned n_connections;            /* all but those that were shut down */
    sd_event_source *idle;             /* of the first in `receiving` */
    bool idle_armed;

    unsigned port; /* TCP */
    char *path;    /* Unix: removed at the end, if it is still this file */
    dev_t device;
    ino_t inode;
    char complaint[128]; /* libmicrohttpd's last */
};

struct http_connection {
    TAILQ_ENTRY(http_connection) link;
    struct http_listener *listener;
    struct http_request *request;  /* that has begun, or NULL */
    struct http_connections *list; /* that it is in, or NULL */
    uint64_t since;                /* of entering it, CLOCK_MONOTONIC */
    bool shut;
    struct http_caller caller; /* without the token */
};

enum http_phase {
    HTTP_PHASE_NEW,     /* the request line is there */
    HTTP_PHASE_BODY,    /* the head is checked */
    HTTP_PHASE_HANDLED, /* the handler has been called, or never will be */
};

struct http_request {
    TAILQ_ENTRY(http_request) link; /* in server->held while suspended */
    struct http_server *server;
    struct http_connection *connection;
    struct MHD_Connection *mhd;
    const struct http_route *route;
    enum http_phase phase;
    bool escaped; /* the path had a % in it */
    bool is_head; /* as against GET */
    bool drain;   /* a refusal waits for the end of the body */
    bool held;
    bool suspended;
    bool answered;
    bool streamed;
    uint64_t started; /* CLOCK_MONOTONIC */

    char *body;
    size_t body_len;
    size_t body_size;
    uint64_t body_seen; /* including what was not kept */

    unsigned status;
    struct MHD_Response *response; /* until it is queued */

    uint64_t deadline; /* CLOCK_MONOTONIC */
    void (*on_deadline)(struct http_request *request, void *userdata);
    void *userdata;
};

/* ---- http_server.c ---- */

/* libmicrohttpd runs again as soon as the loop comes round. */
void http_listener_turn(struct http_listener *listener);

/* Moves the connection to the end of a list of its listener's, or out of all (NULL): what is in
 * none is never shut down to make room. */
void http_connection_move(struct http_connection *connection, struct http_connections *list);

/* ---- http_socket.c ---- */

/* Both return a listening socket. */
int http_socket_tcp(const char *address, unsigned *ret_port, struct error *error) MUST_CHECK;
int http_socket_unix(const char *path, mode_t mode, struct error *error) MUST_CHECK;

/* 127.0.0.0/8, in IPv6 clothes too, or ::1. */
bool http_socket_is_loopback(const struct sockaddr *address);

/* ---- http_request.c ---- */

/* Becomes, and no longer is, the connection's request. */
struct http_request *http_request_new(struct http_connection *connection,
                                      struct MHD_Connection *mhd, const char *uri);
struct http_request *http_request_free(struct http_request *request);

/* libmicrohttpd's access handler for a request: called with the head, for each piece of the body,
 * after the last, and when the connection was resumed. */
enum MHD_Result http_request_step(struct http_request *request, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *size);

/* Answers what is held with 503. */
void http_requests_abandon(struct http_server *server);

/* ---- http_reply.c ---- */

/* The end of every http_reply_*: takes the response. NULL (no memory) closes the connection. */
void http_request_answer(struct http_request *request, unsigned status,
                         struct MHD_Response *response);

struct http_refusal {
    unsigned status;
    const char *code;
    const char *header, *value; /* or NULL */
};

/* A problem that ends the connection: who is wrong once about where a request ends is not asked
 * again where the next begins. Returns false, for the checks. */
bool http_request_refuse(struct http_request *request, const struct http_refusal *refusal,
                         const char *fmt, ...) PRINTF(3, 4);

/* Makes every waiting stream look up, so that it sees the server closing. */
void http_streams_abandon(struct http_server *server);
