/* A server with small limits, on a free port and on a Unix socket, in a loop of its own.
 *
 * Local callers may do everything; so may the bearer of "secret", while "reader" may read. */
#pragma once

#include "common/http.h"
#include "http_client.h"

struct http_world {
    sd_event *event;
    struct http_server *server;
    unsigned port;
    char dir[64];
    char path[96];
    void *data; /* of the test */

    struct http_caller caller; /* the last that was asked about; its token is copied */
    char token[64];
    unsigned answered;
    const char *answered_path;
    unsigned answered_status;
    uint64_t answered_usec;
};

/* Of config, the routes and what is not 0 are taken; the world is the userdata. */
struct http_world *http_world_open(const struct http_config *config);
struct http_world *http_world_close(struct http_world *world);

struct http_client *http_world_tcp(struct http_world *world);
struct http_client *http_world_unix(struct http_world *world);

/* Sends this over a TCP connection of its own and waits for the answer. */
struct http_answer http_world_ask(struct http_world *world, const char *text);
