#include "common/http.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/loop.h"
#include "http_world.h"

#define SECRET "Authorization: Bearer secret\r\n"
#define HOST   "Host: a\r\n"
#define POST   "POST /note HTTP/1.1\r\n" HOST SECRET

struct note {
    char text[16];
};

static const struct schema_field note_fields[] = {
    { .name = "text",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct note, text),
      .size = sizeof(((struct note *)0)->text),
      .required = true },
};

static unsigned handled;

static void reply(struct http_request *request, const void *args, void *userdata)
{
    (void)args, (void)userdata;
    handled++;
    http_reply_text(request, 200, "text/plain", strdup("up 1\n"), 5);
}

/* More than the kernel buffers for a reader who does not read. */
static void reply_large(struct http_request *request, const void *args, void *userdata)
{
    size_t len = 8 * 1024 * 1024;

    (void)args, (void)userdata;
    handled++;
    http_reply_text(request, 200, "text/plain", calloc(1, len), len);
}

static const struct http_route routes[] = {
    { .method = HTTP_GET, .path = "/healthz", .access = HTTP_ACCESS_PUBLIC, .handle = reply },
    { .method = HTTP_GET, .path = "/large", .access = HTTP_ACCESS_PUBLIC, .handle = reply_large },
    { .method = HTTP_POST,
      .path = "/note",
      .access = HTTP_ACCESS_WRITE,
      .fields = note_fields,
      .n_fields = ARRAY_SIZE(note_fields),
      .args_size = sizeof(struct note),
      .handle = reply },
};

static const struct http_config config = { .routes = routes, .n_routes = ARRAY_SIZE(routes) };

static int setup(void **state)
{
    *state = http_world_open(&config);
    handled = 0;
    return 0;
}

static int teardown(void **state)
{
    http_world_close(*state);
    return 0;
}

/* ---- connections ---- */

static void test_keep_alive(void **state)
{
    struct http_client *client = http_world_tcp(*state);

    for (int i = 0; i < 3; i++) {
        http_client_say(client, POST "Content-Length: 12\r\n\r\n{\"text\":\"x\"}");
        struct http_answer answer = http_client_answer(client);
        assert_int_equal(answer.status, 200);
        http_answer_free(&answer);
    }
    /* A body that is wrong only in its fields has not lost anybody the count of bytes. */
    http_client_say(client, POST "Content-Length: 2\r\n\r\n{}"
                                 "GET /healthz HTTP/1.1\r\n" HOST
                                 "\r\nGET /healthz HTTP/1.1\r\n" HOST "\r\n");
    static const int statuses[] = { 400, 200, 200 };
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        struct http_answer answer = http_client_answer(client);
        assert_int_equal(answer.status, statuses[i]);
        http_answer_free(&answer);
    }
    http_client_close(client);
}

/* One byte at a time is slow, but a request. */
static void test_byte_by_byte(void **state)
{
    static const char request[] = POST "Content-Length: 12\r\n\r\n{\"text\":\"x\"}";
    struct http_client *client = http_world_tcp(*state);

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        http_client_send(client, request + i, 1);
        http_settle(client->event);
    }
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.status, 200);
    http_answer_free(&answer);
    http_client_close(client);
}

static const struct http_config hasty = {
    .routes = routes,
    .n_routes = ARRAY_SIZE(routes),
    .idle_timeout_sec = 1,
};

struct trickle {
    struct http_client *client;
    sd_event_source *timer;
    size_t sent;
};

static int on_trickle(sd_event_source *source, uint64_t usec, void *userdata)
{
    static const char head[] = POST "Content-Length: 1000\r\n\r\n";
    struct trickle *trickle = userdata;
    const char *byte = trickle->sent < sizeof(head) - 1 ? head + trickle->sent : " ";

    (void)source, (void)usec;
    send(trickle->client->fd, byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    trickle->sent++;
    return loop_timer(trickle->client->event, &trickle->timer, 5 * USEC_PER_MSEC, on_trickle,
                      trickle);
}

/* Never silent, and yet it ends: first in the middle of the head, then of the body. */
static void test_trickle_ends(void **state)
{
    struct http_world *world = http_world_open(&hasty);
    uint64_t began = loop_now_usec();
    struct trickle slow = { .client = http_world_tcp(world) };
    struct http_client *body = http_world_tcp(world);

    (void)state;
    handled = 0;
    http_client_say(body, POST "Content-Length: 99\r\n\r\n{");
    assert_int_equal(on_trickle(NULL, 0, &slow), 0);
    http_client_await_eof(slow.client);
    assert_in_range(loop_now_usec() - began, USEC_PER_SEC * 9 / 10, USEC_PER_SEC * 5);
    assert_true(slow.sent > 20);
    http_client_await_eof(body);
    assert_int_equal(slow.client->len, 0);
    assert_int_equal(body->len, 0);
    assert_int_equal(handled, 0);

    sd_event_source_disable_unref(slow.timer);
    http_client_close(slow.client);
    http_client_close(body);
    http_world_close(world);
}

/* After a query that it has no memory for, libmicrohttpd 0.9 neither answers nor reads nor tells of
 * the request's end: ours cuts it off, and frees what hung on it. */
static void test_a_query_beyond_memory(void **state)
{
    struct http_world *world = http_world_open(&hasty);
    struct http_client *client = http_world_tcp(world);
    char request[8 * 1024] = "GET /healthz?";

    (void)state;
    handled = 0;
    for (int i = 0; i < 2000; i++)
        strcat(request, "a&");
    strcat(request, " HTTP/1.1\r\n" HOST "\r\n");
    http_client_say(client, request);
    http_client_await_eof(client);
    assert_int_not_equal(strncmp(client->in, "HTTP/1.1 2", 10), 0);
    assert_int_equal(handled, 0);
    http_client_close(client);
    http_world_close(world);
}

/* What a request takes is counted anew for each: a busy connection may grow old. */
static void test_a_busy_connection_stays(void **state)
{
    struct http_world *world = http_world_open(&hasty);
    struct http_client *client = http_world_tcp(world);
    uint64_t began = loop_now_usec();

    (void)state;
    while (loop_now_usec() - began < USEC_PER_SEC * 3 / 2) {
        http_client_say(client, "GET /healthz HTTP/1.1\r\n" HOST "\r\n");
        struct http_answer answer = http_client_answer(client);
        assert_int_equal(answer.status, 200);
        http_answer_free(&answer);
    }
    assert_false(client->eof);
    http_client_await_eof(client);
    assert_in_range(loop_now_usec() - began, USEC_PER_SEC * 2, USEC_PER_SEC * 6);
    http_client_close(client);
    http_world_close(world);
}

#define CROWD 300

static void open_crowd(struct http_world *world, struct http_client **crowd, const char *say)
{
    for (size_t i = 0; i < CROWD; i++) {
        crowd[i] = http_world_tcp(world);
        http_client_say(crowd[i], say);
        if (i % 20 == 0)
            http_settle(world->event);
    }
    http_settle(world->event);
}

static size_t close_crowd(struct http_client **crowd)
{
    size_t alive = 0;

    for (size_t i = 0; i < CROWD; i++) {
        alive += !crowd[i]->eof;
        http_client_close(crowd[i]);
    }
    return alive;
}

static void assert_newcomer_is_served(struct http_world *world)
{
    uint64_t began = loop_now_usec();
    struct http_answer answer =
        http_world_ask(world, POST "Content-Length: 12\r\n\r\n{\"text\":\"x\"}");

    assert_int_equal(answer.status, 200);
    assert_in_range(loop_now_usec() - began, 0, USEC_PER_SEC);
    http_answer_free(&answer);
}

static void test_a_silent_crowd_keeps_nobody_out(void **state)
{
    static const char *const said[] = {
        "",
        "GET /hea",
        POST "Content-Length: 99\r\n\r\n{",
        "POST /note HTTP/1.1\r\n" HOST "Content-Length: 99\r\n\r\n{",
    };
    struct http_client *crowd[CROWD];

    for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
        open_crowd(*state, crowd, said[i]);
        assert_newcomer_is_served(*state);
        assert_int_equal(close_crowd(crowd), 63);
        http_settle(((struct http_world *)*state)->event);
    }
}

/* Who asks for much and takes nothing holds no place either. */
static void test_a_crowd_that_takes_no_answers(void **state)
{
    struct http_client *crowd[140]; /* more than the 64 + 64 that libmicrohttpd lets in */
    struct http_world *world = *state;

    for (size_t i = 0; i < ARRAY_SIZE(crowd); i++) {
        crowd[i] = http_world_tcp(world);
        http_client_pause(crowd[i], true);
        setsockopt(crowd[i]->fd, SOL_SOCKET, SO_RCVBUF, &(int){ 4096 }, sizeof(int));
        http_client_say(crowd[i], "GET /large HTTP/1.1\r\n" HOST "\r\n");
        http_settle(world->event);
    }
    assert_int_equal(handled, ARRAY_SIZE(crowd));
    assert_newcomer_is_served(world);
    for (size_t i = 0; i < ARRAY_SIZE(crowd); i++)
        http_client_close(crowd[i]);
}

/* An idle server sleeps, even with somebody connected. */
static void test_idle_costs_nothing(void **state)
{
    struct http_world *world = *state;
    struct http_client *silent = http_world_tcp(world);
    struct http_client *partial = http_world_unix(world);
    uint64_t before, after;

    http_client_say(partial, "POST /note HTTP/1.1\r\n" HOST "Content-Length: 99\r\n\r\n{");
    http_settle(world->event);
    sd_event_get_iteration(world->event, &before);
    uint64_t began = loop_now_usec();
    while (loop_now_usec() - began < 200 * USEC_PER_MSEC)
        sd_event_run(world->event, 50 * USEC_PER_MSEC);
    sd_event_get_iteration(world->event, &after);
    assert_in_range(after - before, 1, 8);
    http_client_close(silent);
    http_client_close(partial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keep_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
        cmocka_unit_test(test_trickle_ends),
        cmocka_unit_test(test_a_query_beyond_memory),
        cmocka_unit_test(test_a_busy_connection_stays),
        cmocka_unit_test_setup_teardown(test_a_silent_crowd_keeps_nobody_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_crowd_that_takes_no_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_costs_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
