#include "http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_USEC (20 * 1000000ull)

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "http_client: %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- the connection ---- */

static void append(struct http_client *client, const char *data, size_t len)
{
    client->in = realloc(client->in, client->len + len + 1);
    must(client->in, "memory");
    memcpy(client->in + client->len, data, len);
    client->len += len;
    client->in[client->len] = '\0';
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct http_client *client = userdata;
    char buffer[64 * 1024];

    (void)events;
    ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
    if (n > 0) {
        append(client, buffer, (size_t)n);
    } else if (n == 0 || errno != EAGAIN) {
        client->eof = true;
        client->reset = n < 0;
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    }
    return 0;
}

static struct http_client *client_new(sd_event *event, int family, const struct sockaddr *address,
                                      socklen_t len)
{
    struct http_client *client = calloc(1, sizeof(*client));

    must(client, "memory");
    client->event = event;
    append(client, "", 0);
    client->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(client->fd >= 0, "socket");
    must(connect(client->fd, address, len) == 0, "connect");
    int r = sd_event_add_io(event, &client->source, client->fd, EPOLLIN, on_readable, client);
    errno = r < 0 ? -r : 0;
    must(r >= 0, "watch");
    return client;
}

struct http_client *http_client_tcp(sd_event *event, unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return client_new(event, AF_INET, (const struct sockaddr *)&address, sizeof(address));
}

struct http_client *http_client_unix(sd_event *event, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    must(strlen(path) < sizeof(address.sun_path), "path");
    strcpy(address.sun_path, path);
    return client_new(event, AF_UNIX, (const struct sockaddr *)&address, sizeof(address));
}

struct http_client *http_client_close(struct http_client *client)
{
    if (!client)
        return NULL;
    sd_event_source_disable_unref(client->source);
    close(client->fd);
    free(client->in);
    free(client);
    return NULL;
}

void http_client_pause(struct http_client *client, bool pause)
{
    sd_event_source_set_enabled(client->source, pause ? SD_EVENT_OFF : SD_EVENT_ON);
}

void http_client_send(struct http_client *client, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(client->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            http_turn(client->event);
        } else {
            return; /* the answer, or its absence, tells */
        }
    }
}

void http_client_say(struct http_client *client, const char *text)
{
    http_client_send(client, text, strlen(text));
}

/* ---- waiting ---- */

void http_turn(sd_event *event)
{
    must(sd_event_run(event, PATIENCE_USEC) > 0, "nothing happens");
}

void http_settle(sd_event *event)
{
    while (sd_event_run(event, 0) > 0)
        ;
}

void http_client_await_eof(struct http_client *client)
{
    while (!client->eof)
        http_turn(client->event);
}

void http_client_await_bytes(struct http_client *client, size_t len)
{
    while (client->len < len && !client->eof)
        http_turn(client->event);
}

/* ---- answers ---- */

static const char *header_value(const char *head, const char *name)
{
    const char *found = strcasestr(head, name);
    return found ? found + strlen(name) : NULL;
}

/* Puts the chunks at p together. Returns the bytes that they took, or -1 when some are missing. */
static ssize_t take_chunks(const char *p, size_t len, struct http_answer *answer)
{
    const char *begin = p, *end = p + len;

    for (;;) {
        const char *line_end = memmem(p, (size_t)(end - p), "\r\n", 2);
        if (!line_end)
            return -1;
        size_t size = strtoul(p, NULL, 16);
        p = line_end + 2;
        if ((size_t)(end - p) < size + 2)
            return -1;
        memcpy(answer->body + answer->body_len, p, size);
        answer->body_len += size;
        p += size + 2;
        if (size == 0)
            return p - begin;
    }
}

static ssize_t take_body(const struct http_client *client, const char *p, size_t len,
                         struct http_answer *answer)
{
    const char *length = header_value(answer->head, "\r\nContent-Length: ");

    if (header_value(answer->head, "\r\nTransfer-Encoding: chunked"))
        return take_chunks(p, len, answer);
    size_t size = length ? strtoul(length, NULL, 10) : len;
    if (len < size || (!length && !client->eof))
        return -1;
    memcpy(answer->body, p, size);
    answer->body_len = size;
    return (ssize_t)size;
}

/* Returns the bytes that the answer takes in the buffer, or -1 when it is not there as a whole. */
static ssize_t parse(const struct http_client *client, struct http_answer *answer)
{
    const char *p = client->in;

    while (!strncmp(p, "HTTP/1.1 100 ", 13) && strstr(p, "\r\n\r\n"))
        p = strstr(p, "\r\n\r\n") + 4;
    const char *head_end = strstr(p, "\r\n\r\n");
    if (!head_end)
        return -1;

    answer->status = atoi(p + strlen("HTTP/1.1 "));
    answer->head = strndup(p, (size_t)(head_end + 4 - p));
    answer->body = calloc(1, client->len + 1);
    must(answer->head && answer->body, "memory");
    p = head_end + 4;
    ssize_t n = take_body(client, p, client->len - (size_t)(p - client->in), answer);
    return n < 0 ? -1 : p + n - client->in;
}

bool http_client_has_answer(const struct http_client *client)
{
    struct http_answer answer = { 0 };
    ssize_t n = parse(client, &answer);

    http_answer_free(&answer);
    return n >= 0;
}

struct http_answer http_client_answer(struct http_client *client)
{
    struct http_answer answer = { 0 };

    while (!client->eof && !http_client_has_answer(client))
        http_turn(client->event);
    ssize_t n = parse(client, &answer);
    if (n < 0) {
        http_answer_free(&answer);
        return answer;
    }
    memmove(client->in, client->in + n, client->len - (size_t)n + 1);
    client->len -= (size_t)n;
    return answer;
}

void http_answer_free(struct http_answer *answer)
{
    free(answer->head);
    free(answer->body);
    *answer = (struct http_answer){ 0 };
}

bool http_answer_says(const struct http_answer *answer, const char *header)
{
    return answer->head && strcasestr(answer->head, header);
}
