/* Raw bytes to a real server over its Unix socket: no byte sequence may crash it, keep a request
 * without an answer, or leave a stream open when its reader has gone. */
#include <string.h>
#include <sys/socket.h>

#include "common/http.h"
#include "http_world.h"

struct args {
    char text[16];
    uint64_t number;
};

static const struct schema_field fields[] = {
    { .name = "text",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct args, text),
      .size = sizeof(((struct args *)0)->text) },
    { .name = "number", .type = SCHEMA_UINT, .offset = offsetof(struct args, number), .max = 1000 },
};

static struct http_world *world;
static struct http_request *kept;
static struct http_stream *stream; /* at most one is open */
static unsigned handled;
static bool more;

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_args(const void *data)
{
    const struct args *args = data;

    handled++;
    must(strnlen(args->text, sizeof(args->text)) < sizeof(args->text));
    must(args->number <= 1000);
}

static void reply(struct http_request *request, const void *args, void *userdata)
{
    (void)userdata;
    check_args(args);
    http_reply_json(request, 200, json_pack("{s:s}", "text", ((const struct args *)args)->text));
}

static void hold(struct http_request *request, const void *args, void *userdata)
{
    (void)args, (void)userdata;
    handled++;
    http_request_hold(request, 60 * USEC_PER_SEC, NULL, NULL);
    must(!kept); /* one connection, one request at a time */
    kept = request;
}

static ssize_t next(void *data, char *buffer, size_t size)
{
    (void)data;
    must(size >= 4096);
    if (!more)
        return HTTP_STREAM_WAIT;
    more = false;
    memset(buffer, 'x', size);
    return (ssize_t)size;
}

static void on_close(void *data)
{
    *(bool *)data = false;
    stream = NULL;
}

static bool stream_open;

static void reply_stream(struct http_request *request, const void *args, void *userdata)
{
    static const struct http_stream_ops ops = { .next = next, .close = on_close };

    (void)args, (void)userdata;
    handled++;
    stream_open = true;
    http_reply_stream(request, "text/plain", &ops, &stream_open, &stream);
}

static const struct http_route routes[] = {
    { .method = HTTP_GET,
      .path = "/get",
      .access = HTTP_ACCESS_READ,
      .fields = fields,
      .n_fields = ARRAY_SIZE(fields),
      .args_size = sizeof(struct args),
      .handle = reply },
    { .method = HTTP_POST,
      .path = "/post",
      .access = HTTP_ACCESS_WRITE,
      .fields = fields,
      .n_fields = ARRAY_SIZE(fields),
      .args_size = sizeof(struct args),
      .handle = reply },
    { .method = HTTP_GET, .path = "/hold", .access = HTTP_ACCESS_PUBLIC, .handle = hold },
    { .method = HTTP_GET, .path = "/stream", .access = HTTP_ACCESS_PUBLIC, .handle = reply_stream },
};

static const struct http_config config = {
    .routes = routes,
    .n_routes = ARRAY_SIZE(routes),
    .body_max = 256,
    .connections_max = 4,
};

/* Everything that waits goes on, until nothing waits any more or the connection hangs in the
 * stream, which only a reader that goes away ends. */
static void go_on(void)
{
    http_settle(world->event);
    while (kept) {
        struct http_request *request = kept;

        kept = NULL;
        http_reply_problem(request, 504, "late", NULL, "late");
        http_settle(world->event);
    }
}

static void leave_stream(void)
{
    for (int heartbeats = 0; stream_open; heartbeats++) {
        must(heartbeats < 8);
        more = true;
        http_stream_wake(stream);
        http_settle(world->event);
    }
}

static void close_world(void)
{
    http_world_close(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world) {
        world = http_world_open(&config);
        atexit(close_world);
    }

    struct http_client *client = http_world_unix(world);
    handled = world->answered = 0;
    http_client_send(client, (const char *)data, size);
    go_on();
    shutdown(client->fd, SHUT_WR);
    go_on();
    must(client->len == 0 || !strncmp(client->in, "HTTP/1.", 7));
    must(world->answered >= handled);
    http_client_close(client);
    go_on();
    leave_stream();
    return 0;
}
