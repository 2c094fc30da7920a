#include "common/http.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/loop.h"
#include "http_world.h"

#define HOST        "Host: a\r\n"
#define GET(target) "GET " target " HTTP/1.1\r\n" HOST "\r\n"

/* ---- held requests ---- */

enum end { END_SERVER, END_ANSWERS, END_FORGETS, END_AT_ONCE };

static const char *const ends[] = { "server", "answers", "forgets", "at_once", NULL };

struct hold {
    uint64_t msec;
    int end;
};

static const struct schema_field hold_fields[] = {
    { .name = "msec", .type = SCHEMA_UINT, .offset = offsetof(struct hold, msec) },
    { .name = "end", .type = SCHEMA_ENUM, .offset = offsetof(struct hold, end), .names = ends },
};

static struct http_request *kept[128];
static size_t n_kept;
static unsigned deadlines;

static void on_deadline(struct http_request *request, void *userdata)
{
    deadlines++;
    if (*(int *)userdata == END_ANSWERS)
        http_reply_problem(request, 504, "freeze_timeout", NULL, "rolled back");
}

static void hold(struct http_request *request, const void *args, void *userdata)
{
    static int how[] = { END_SERVER, END_ANSWERS, END_FORGETS, END_AT_ONCE };
    const struct hold *want = args;

    (void)userdata;
    http_request_hold(request, want->msec * USEC_PER_MSEC,
                      want->end == END_SERVER ? NULL : on_deadline, &how[want->end]);
    if (want->end == END_AT_ONCE)
        http_reply_json(request, 200, json_pack("{s:b}", "already", 1));
    else
        kept[n_kept++] = request;
}

static void hold_long(void *args)
{
    ((struct hold *)args)->msec = 60 * 1000;
}

static void pong(struct http_request *request, const void *args, void *userdata)
{
    (void)args, (void)userdata;
    http_reply_text(request, 200, "text/plain", strdup("pong"), 4);
}

/* ---- a stream of known bytes ---- */

struct source {
    struct http_stream *stream;
    size_t available; /* bytes that there are */
    size_t produced;
    bool endless;
    bool ends; /* after what is available */
    bool fails;
    size_t smallest; /* buffer */
    unsigned closed;
};

/* They outlive the test: what is still open at its end is closed with the server. */
static struct source from[3];
static struct source *source; /* of the next stream */

static void stream_from(size_t i, struct source is)
{
    source = &from[i];
    *source = is;
}

static char byte_at(size_t i)
{
    return (char)('a' + i % 23);
}

static ssize_t next(void *data, char *buffer, size_t size)
{
    struct source *s = data;
    size_t left = s->endless ? size : s->available - s->produced;
    size_t n = left < size ? left : size;

    if (!s->smallest || size < s->smallest)
        s->smallest = size;
    for (size_t i = 0; i < n; i++)
        buffer[i] = byte_at(s->produced++);
    if (n > 0)
        return (ssize_t)n;
    return s->fails ? -2 : s->ends ? HTTP_STREAM_END : HTTP_STREAM_WAIT;
}

static void on_close(void *data)
{
    ((struct source *)data)->closed++;
}

static void reply_stream(struct http_request *request, const void *args, void *userdata)
{
    static const struct http_stream_ops ops = { .next = next, .close = on_close };

    (void)args, (void)userdata;
    http_reply_stream(request, "application/jsonl", &ops, source, &source->stream);
}

static const struct http_route routes[] = {
    { .method = HTTP_GET,
      .path = "/hold",
      .access = HTTP_ACCESS_PUBLIC,
      .fields = hold_fields,
      .n_fields = ARRAY_SIZE(hold_fields),
      .args_size = sizeof(struct hold),
      .defaults = hold_long,
      .handle = hold },
    { .method = HTTP_GET, .path = "/ping", .access = HTTP_ACCESS_PUBLIC, .handle = pong },
    { .method = HTTP_GET, .path = "/stream", .access = HTTP_ACCESS_PUBLIC, .handle = reply_stream },
};

static const struct http_config config = {
    .routes = routes,
    .n_routes = ARRAY_SIZE(routes),
    .connections_max = 8,
    .idle_timeout_sec = 1,
    .streams_max = 2,
};

static int setup(void **state)
{
    *state = http_world_open(&config);
    n_kept = 0;
    deadlines = 0;
    return 0;
}

static int teardown(void **state)
{
    if (*state)
        http_world_close(*state);
    return 0;
}

static struct http_client *say(struct http_world *world, const char *text)
{
    struct http_client *client = http_world_tcp(world);

    http_client_say(client, text);
    http_settle(world->event);
    return client;
}

static void expect(struct http_client *client, int status, const char *code)
{
    struct http_answer answer = http_client_answer(client);

    assert_int_equal(answer.status, status);
    if (code)
        assert_non_null(strstr(answer.body, code));
    http_answer_free(&answer);
}

static void reply_kept(size_t i)
{
    http_reply_json(kept[i], 200, json_pack("{s:i}", "kept", (int)i));
}

/* ---- held ---- */

static void test_answered_later(void **state)
{
    struct http_world *world = *state;
    struct http_client *client = say(world, GET("/hold"));

    assert_int_equal(n_kept, 1);
    assert_int_equal(client->len, 0);
    assert_int_equal(world->answered, 0);
    reply_kept(0);
    assert_int_equal(world->answered, 1);
    expect(client, 200, "\"kept\":0");

    http_client_say(client, GET("/ping"));
    expect(client, 200, "pong");
    http_client_close(client);
}

static void test_pipelined_behind_a_held_one(void **state)
{
    struct http_client *client = say(*state, GET("/hold") GET("/ping") GET("/hold"));

    assert_int_equal(n_kept, 1);
    reply_kept(0);
    expect(client, 200, "\"kept\":0");
    expect(client, 200, "pong");
    http_settle(client->event);
    assert_int_equal(n_kept, 2);
    reply_kept(1);
    expect(client, 200, "\"kept\":1");
    http_client_close(client);
}

static void test_answered_at_once_after_all(void **state)
{
    struct http_client *client = say(*state, GET("/hold?end=at_once"));

    expect(client, 200, "already");
    http_client_close(client);
}

static void test_deadlines(void **state)
{
    struct http_client *server = say(*state, GET("/hold?msec=20"));
    struct http_client *answers = say(*state, GET("/hold?msec=20&end=answers"));
    struct http_client *forgets = say(*state, GET("/hold?msec=20&end=forgets"));

    expect(server, 503, "\"deadline\"");
    expect(answers, 504, "\"freeze_timeout\"");
    expect(forgets, 503, "\"deadline\"");
    assert_int_equal(deadlines, 2);
    http_client_close(server);
    http_client_close(answers);
    http_client_close(forgets);
}

/* Whatever the order of their coming, each in its own time; and who is answered has none. */
static void test_deadlines_keep_their_order(void **state)
{
    static const char *const asks[] = {
        GET("/hold?msec=150"),
        GET("/hold?msec=50"),
        GET("/hold?msec=100"),
        GET("/hold?msec=10"),
    };
    struct http_client *clients[ARRAY_SIZE(asks)];
    struct http_world *world = *state;
    uint64_t began = loop_now_usec();

    for (size_t i = 0; i < ARRAY_SIZE(asks); i++)
        clients[i] = say(world, asks[i]);
    reply_kept(3);
    expect(clients[3], 200, "\"kept\":3");
    expect(clients[1], 503, "\"deadline\"");
    assert_true(loop_now_usec() - began >= 50 * USEC_PER_MSEC);
    assert_int_equal(clients[2]->len, 0);
    expect(clients[2], 503, "\"deadline\"");
    assert_true(loop_now_usec() - began >= 100 * USEC_PER_MSEC);
    assert_int_equal(clients[0]->len, 0);
    expect(clients[0], 503, "\"deadline\"");
    assert_true(loop_now_usec() - began >= 150 * USEC_PER_MSEC);
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++)
        http_client_close(clients[i]);
}

/* Its own deadline is all that bounds it: the idle timeout of 1 s is for those who owe us a
 * request. */
static void test_the_idle_timeout_leaves_it_alone(void **state)
{
    struct http_client *client = say(*state, GET("/hold?msec=1500"));

    expect(client, 503, "\"deadline\"");
    http_client_close(client);
}

/* All places are taken by requests that wait, and whoever comes still gets in. */
static void test_waiting_requests_keep_nobody_out(void **state)
{
    struct http_client *holders[20];
    struct http_world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
        holders[i] = say(world, GET("/hold"));
    assert_int_equal(n_kept, ARRAY_SIZE(holders));
    for (int i = 0; i < 5; i++) {
        struct http_answer answer = http_world_ask(world, GET("/ping"));
        assert_int_equal(answer.status, 200);
        http_answer_free(&answer);
    }
    for (size_t i = 0; i < ARRAY_SIZE(holders); i++) {
        reply_kept(i);
        expect(holders[i], 200, "kept");
        http_client_close(holders[i]);
    }
}

/* However many come at once: none is taken for the oldest silent one before it was heard. */
static void test_newcomers_at_once(void **state)
{
    const struct http_config roomy = {
        .routes = routes,
        .n_routes = ARRAY_SIZE(routes),
        .connections_max = 64,
    };
    struct http_world *world = http_world_open(&roomy);
    struct http_client *holders[64], *newcomers[30];

    (void)state;
    n_kept = 0;
    for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
        holders[i] = say(world, GET("/hold"));
    for (size_t i = 0; i < ARRAY_SIZE(newcomers); i++) {
        newcomers[i] = http_world_tcp(world);
        http_client_say(newcomers[i], GET("/ping"));
    }
    for (size_t i = 0; i < ARRAY_SIZE(newcomers); i++) {
        expect(newcomers[i], 200, "pong");
        http_client_close(newcomers[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(holders); i++) {
        reply_kept(i);
        expect(holders[i], 200, "kept");
        http_client_close(holders[i]);
    }
    http_world_close(world);
}

/* Beyond libmicrohttpd's own limit a newcomer waits in the backlog, and is let in as soon as
 * somebody leaves: without any other event that would wake the server. */
static void test_the_backlog_moves_up(void **state)
{
    struct http_client *holders[8 + 64];
    struct http_world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
        holders[i] = say(world, "GET /hold HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    assert_int_equal(n_kept, ARRAY_SIZE(holders));
    struct http_client *newcomer = say(world, GET("/ping"));
    assert_int_equal(newcomer->len, 0);

    uint64_t began = loop_now_usec();
    reply_kept(0);
    expect(newcomer, 200, "pong");
    assert_in_range(loop_now_usec() - began, 0, USEC_PER_SEC / 2);
    for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
        http_client_close(holders[i]);
    http_client_close(newcomer);
}

static void test_the_caller_has_gone(void **state)
{
    struct http_world *world = *state;
    struct http_client *client = say(world, GET("/hold"));

    http_client_close(client);
    http_settle(world->event);
    reply_kept(0);
    http_settle(world->event);
    assert_int_equal(world->answered, 1);
    client = say(world, GET("/hold?msec=20"));
    http_client_close(client);
    while (world->answered < 2)
        http_turn(world->event);
    http_settle(world->event);
}

static void test_closing_answers(void **state)
{
    struct http_world *world = *state;
    struct http_client *held = say(world, GET("/hold?end=answers"));
    struct http_client *twice = say(world, GET("/hold") GET("/ping"));
    struct http_client *silent = say(world, "");
    struct http_client *partial = say(world, "GET /ho");
    struct http_client *unread = http_world_tcp(world);

    http_client_say(unread, GET("/hold"));
    assert_int_equal(n_kept, 2);
    world->server = http_server_close(world->server);
    expect(held, 503, "\"unavailable\"");
    http_client_await_eof(held);
    expect(twice, 503, "\"unavailable\"");
    http_client_await_eof(twice);
    http_client_await_eof(silent);
    http_client_await_eof(partial);
    http_client_await_eof(unread);
    assert_int_equal(deadlines, 0);
    assert_int_equal(n_kept, 2);
    http_client_close(held);
    http_client_close(twice);
    http_client_close(silent);
    http_client_close(partial);
    http_client_close(unread);
}

/* ---- streams ---- */

static void assert_bytes(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != byte_at(i))
            fail_msg("byte %zu", i);
}

static void test_stream(void **state)
{

    stream_from(0, (struct source){ .available = 100 * 1000, .ends = true });
    struct http_client *client = say(*state, GET("/stream"));
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.status, 200);
    assert_true(http_answer_says(&answer, "\r\nContent-Type: application/jsonl\r\n"));
    assert_true(http_answer_says(&answer, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_int_equal(answer.body_len, 100 * 1000);
    assert_bytes(answer.body, answer.body_len);
    assert_int_equal(from[0].closed, 1);
    assert_true(from[0].smallest >= 4096);
    http_answer_free(&answer);

    http_client_say(client, GET("/ping"));
    expect(client, 200, "pong");
    http_client_close(client);
    assert_int_equal(from[0].closed, 1);
}

static void test_an_empty_stream(void **state)
{

    stream_from(0, (struct source){ .ends = true });
    struct http_client *client = say(*state, GET("/stream"));
    expect(client, 200, "");
    assert_int_equal(from[0].closed, 1);
    http_client_close(client);
}

/* With nothing to say yet the head is there already; then comes what there is, when there is. */
static void test_wake(void **state)
{
    uint64_t began = loop_now_usec();

    stream_from(0, (struct source){ 0 });
    struct http_client *client = say(*state, GET("/stream"));
    http_client_await_bytes(client, 1);
    assert_non_null(strstr(client->in, "\r\n\r\n"));
    assert_in_range(loop_now_usec() - began, 0, 100 * USEC_PER_MSEC);

    for (size_t n = 1; n <= 3; n++) {
        size_t len = client->len;
        http_stream_wake(from[0].stream);
        http_settle(client->event);
        assert_int_equal(client->len, len);
        from[0].available += 10;
        http_stream_wake(from[0].stream);
        http_stream_wake(from[0].stream);
        http_client_await_bytes(client, len + 1);
        assert_int_equal(from[0].produced, 10 * n);
    }
    from[0].ends = true;
    http_stream_wake(from[0].stream);
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.body_len, 30);
    assert_bytes(answer.body, 30);
    assert_int_equal(from[0].closed, 1);
    http_answer_free(&answer);
    http_client_close(client);
}

/* A reader that does not read stops the making, and the loop sleeps; nothing is lost. */
static void test_a_slow_reader(void **state)
{
    struct http_world *world = *state;
    struct http_client *client = http_world_tcp(world);
    uint64_t before, after;

    stream_from(0, (struct source){ .endless = true });
    http_client_pause(client, true);
    http_client_say(client, GET("/stream"));
    http_settle(world->event);
    size_t made = from[0].produced;
    assert_in_range(made, 1, 16 * 1024 * 1024); /* what the kernel buffers */

    sd_event_get_iteration(world->event, &before);
    for (int i = 0; i < 4; i++)
        sd_event_run(world->event, 50 * USEC_PER_MSEC);
    sd_event_get_iteration(world->event, &after);
    assert_in_range(after - before, 1, 8);
    assert_int_equal(from[0].produced, made);

    http_client_pause(client, false);
    while (from[0].produced < made + 1024 * 1024)
        http_turn(world->event);
    from[0].endless = false;
    from[0].available = from[0].produced;
    from[0].ends = true;
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.body_len, from[0].produced);
    assert_bytes(answer.body, answer.body_len);
    assert_int_equal(from[0].closed, 1);
    http_answer_free(&answer);
    http_client_close(client);
}

static void test_a_reader_that_stops(void **state)
{
    struct http_world *world = *state;
    struct http_client *client = http_world_tcp(world);

    stream_from(0, (struct source){ .endless = true });
    http_client_pause(client, true);
    http_client_say(client, GET("/stream"));
    while (!from[0].closed)
        http_turn(world->event);
    http_client_close(client);
}

static void test_a_buffer_of_4k_beside_the_largest_head(void **state)
{
    char request[16 * 1024];
    char *end = request + sprintf(request, "GET /stream HTTP/1.1\r\n" HOST);

    for (int i = 0; i < 63; i++)
        end +=
            sprintf(end, "X-%d: %.*s\r\n", i, 110,
                    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    strcpy(end, "\r\n");
    stream_from(0, (struct source){ .available = 20 * 1000, .ends = true });
    struct http_client *client = say(*state, request);
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.body_len, 20 * 1000);
    assert_true(from[0].smallest >= 4096);
    http_answer_free(&answer);
    http_client_close(client);
}

static void test_streams_max(void **state)
{
    struct http_client *clients[3];

    for (size_t i = 0; i < 3; i++) {
        stream_from(i, (struct source){ 0 });
        clients[i] = say(*state, GET("/stream"));
    }
    expect(clients[2], 503, "\"too_many_streams\"");
    assert_int_equal(from[2].closed, 1);
    assert_null(from[2].stream);
    assert_int_equal(from[0].closed, 0);

    from[0].ends = true;
    http_stream_wake(from[0].stream);
    expect(clients[0], 200, NULL);
    stream_from(2, (struct source){ 0 });
    http_client_say(clients[2], GET("/stream"));
    http_client_await_bytes(clients[2], 1);
    assert_int_equal(strncmp(clients[2]->in, "HTTP/1.1 200 ", 13), 0);
    for (size_t i = 0; i < 3; i++)
        http_client_close(clients[i]);
}

static void test_the_reader_goes_while_it_is_written_to(void **state)
{
    struct http_world *world = *state;

    stream_from(0, (struct source){ .endless = true });
    struct http_client *client = http_world_tcp(world);
    http_client_say(client, GET("/stream"));
    http_client_await_bytes(client, 100 * 1000);
    http_client_close(client);
    while (!from[0].closed)
        http_turn(world->event);
    http_settle(world->event);
    assert_int_equal(from[0].closed, 1);
}

static void test_the_reader_goes_while_it_waits(void **state)
{
    struct http_world *world = *state;

    stream_from(0, (struct source){ 0 });
    struct http_client *client = say(world, GET("/stream"));
    http_client_close(client);
    http_settle(world->event);
    for (int heartbeats = 0; !from[0].closed; heartbeats++) {
        assert_in_range(heartbeats, 0, 3);
        from[0].available++;
        http_stream_wake(from[0].stream);
        http_settle(world->event);
    }
    assert_int_equal(from[0].closed, 1);
}

static void test_a_failure_is_no_end(void **state)
{

    stream_from(0, (struct source){ .available = 10, .fails = true });
    struct http_client *client = say(*state, GET("/stream"));
    http_client_await_eof(client);
    assert_non_null(strstr(client->in, "abcdefghij\r\n"));
    assert_null(strstr(client->in, "\r\n0\r\n"));
    assert_int_equal(from[0].closed, 1);
    http_client_close(client);
}

static void test_a_reader_without_chunks(void **state)
{

    stream_from(0, (struct source){ .available = 50 * 1000, .ends = true });
    struct http_client *client = say(*state, "GET /stream HTTP/1.0\r\n\r\n");
    struct http_answer answer = http_client_answer(client);
    assert_false(http_answer_says(&answer, "chunked"));
    assert_int_equal(answer.body_len, 50 * 1000);
    assert_bytes(answer.body, answer.body_len);
    assert_true(client->eof);
    http_answer_free(&answer);
    http_client_close(client);
}

static void test_head_of_a_stream(void **state)
{

    stream_from(0, (struct source){ .endless = true });
    struct http_client *client =
        say(*state, "HEAD /stream HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    http_client_await_eof(client);
    assert_int_equal(from[0].produced, 0);
    assert_int_equal(from[0].closed, 1);
    assert_string_equal(strstr(client->in, "\r\n\r\n"), "\r\n\r\n");
    http_client_close(client);
}

static void test_newcomers_do_not_end_a_stream(void **state)
{
    struct http_client *crowd[50];
    struct http_world *world = *state;

    stream_from(0, (struct source){ 0 });
    struct http_client *client = say(world, GET("/stream"));
    for (size_t i = 0; i < ARRAY_SIZE(crowd); i++)
        crowd[i] = say(world, "");
    from[0].available = 5;
    from[0].ends = true;
    http_stream_wake(from[0].stream);
    expect(client, 200, "abcde");
    for (size_t i = 0; i < ARRAY_SIZE(crowd); i++)
        http_client_close(crowd[i]);
    http_client_close(client);
}

static void test_waiting_costs_nothing(void **state)
{
    struct http_world *world = *state;
    uint64_t before, after;

    stream_from(0, (struct source){ 0 });
    struct http_client *stream = say(world, GET("/stream"));
    struct http_client *held = say(world, GET("/hold"));
    sd_event_get_iteration(world->event, &before);
    for (int i = 0; i < 4; i++)
        sd_event_run(world->event, 50 * USEC_PER_MSEC);
    sd_event_get_iteration(world->event, &after);
    assert_in_range(after - before, 1, 8);
    http_client_close(stream);
    http_client_close(held);
}

static void test_closing_ends_streams(void **state)
{
    struct http_world *world = *state;

    stream_from(0, (struct source){ .available = 10 });
    struct http_client *one = say(world, GET("/stream"));
    struct http_client *two = http_world_tcp(world);
    stream_from(1, (struct source){ .endless = true });
    http_client_pause(two, true);
    http_client_say(two, GET("/stream"));
    http_settle(world->event);

    world->server = http_server_close(world->server);
    assert_int_equal(from[0].closed, 1);
    assert_int_equal(from[1].closed, 1);
    http_client_await_eof(one);
    assert_null(strstr(one->in, "\r\n0\r\n"));
    http_client_close(one);
    http_client_close(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answered_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelined_behind_a_held_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answered_at_once_after_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_idle_timeout_leaves_it_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_requests_keep_nobody_out, setup, teardown),
        cmocka_unit_test(test_newcomers_at_once),
        cmocka_unit_test_setup_teardown(test_the_backlog_moves_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_caller_has_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wake, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_reader_that_stops, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_buffer_of_4k_beside_the_largest_head, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_streams_max, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_reader_goes_while_it_is_written_to, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_reader_goes_while_it_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failure_is_no_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_reader_without_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_of_a_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newcomers_do_not_end_a_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_ends_streams, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
