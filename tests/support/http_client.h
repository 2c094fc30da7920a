/* Raw bytes to a server in the same loop, and back: a test sends, turns the loop until what it
 * waits for is there, and looks. No threads and no sleeps; a wait that lasts too long ends the
 * test program. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <systemd/sd-event.h>

struct http_client {
    sd_event *event;
    sd_event_source *source;
    int fd;
    char *in; /* NUL-terminated */
    size_t len;
    bool eof;
    bool reset; /* how it ended */
};

struct http_answer {
    int status;
    char *head;
    char *body; /* with the chunks put together */
    size_t body_len;
};

/* Both connect; who listens is asked of the loop later. */
struct http_client *http_client_tcp(sd_event *event, unsigned port);
struct http_client *http_client_unix(sd_event *event, const char *path);
struct http_client *http_client_close(struct http_client *client);

/* A slow reader: what comes stays in the kernel. */
void http_client_pause(struct http_client *client, bool pause);

void http_client_send(struct http_client *client, const char *data, size_t len);
void http_client_say(struct http_client *client, const char *text);

/* One round of the loop; ends the program when nothing happens for 20 seconds. */
void http_turn(sd_event *event);
/* Rounds of the loop until there is nothing more to do. */
void http_settle(sd_event *event);

void http_client_await_eof(struct http_client *client);
void http_client_await_bytes(struct http_client *client, size_t len);

/* Is one answer there as a whole? 100 Continue is not counted. */
bool http_client_has_answer(const struct http_client *client);
/* Waits for one answer and takes it out of the buffer. After the end of the connection without
 * one: status 0. */
struct http_answer http_client_answer(struct http_client *client);
void http_answer_free(struct http_answer *answer);

/* Is this text in the head, whatever its case? */
bool http_answer_says(const struct http_answer *answer, const char *header);
