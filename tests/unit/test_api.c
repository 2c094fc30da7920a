#include "agent/api.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "agent/limits.h"
#include "fake_calls.h"
#include "node.h"

/* ---- a freezer that answers as it is told ---- */

static int forced; /* an outcome or -errno; 0: ask the freezer itself */

void __real_freezer_freeze(struct freezer *freezer, const struct freeze_request *request,
                           struct freezer_waiter *waiter);
void __wrap_freezer_freeze(struct freezer *freezer, const struct freeze_request *request,
                           struct freezer_waiter *waiter);

void __wrap_freezer_freeze(struct freezer *freezer, const struct freeze_request *request,
                           struct freezer_waiter *waiter)
{
    struct error error = ERROR_INIT;

    if (forced == 0) {
        __real_freezer_freeze(freezer, request, waiter);
        return;
    }
    if (forced < 0)
        error_set(&error, -forced, "write cgroup.freeze");
    else
        error_outcome(&error, forced, "this is outcome %d", forced);
    waiter->reason = forced == FREEZER_E_REFUSED ? "own_pod" : NULL;
    waiter->done(waiter, forced, false, NULL, &error);
}

/* ---- the bench ---- */

static struct node *node;

static int open_bench(const struct node_options *options)
{
    forced = 0;
    node = node_open(options);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return open_bench(NULL);
}

static int setup_hasty(void **state)
{
    struct node_options options = { .freeze_timeout_usec = 50 * USEC_PER_MSEC };

    (void)state;
    return open_bench(&options);
}

static int teardown(void **state)
{
    (void)state;
    node = node_close(node);
    return 0;
}

/* ---- requests ---- */

static struct http_client *send_post(const char *path, const char *body)
{
    struct http_client *client = node_client(node);
    char *text = NULL;

    assert_true(asprintf(&text,
                         "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         path, strlen(body), body) > 0);
    http_client_say(client, text);
    free(text);
    return client;
}

static struct http_client *send_get(const char *path)
{
    struct http_client *client = node_client(node);

    http_client_say(client, keep("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path));
    return client;
}

/* The answer's JSON; its status in *ret_status. */
static json_t *take_json(struct http_client *client, int *ret_status)
{
    struct http_answer answer = http_client_answer(client);
    json_t *json = json_loads(answer.body ? answer.body : "", 0, NULL);

    *ret_status = answer.status;
    if (answer.status >= 400)
        assert_true(http_answer_says(&answer, "application/problem+json"));
    http_answer_free(&answer);
    http_client_close(client);
    assert_non_null(json);
    return json;
}

static json_t *post(const char *path, const char *body, int status)
{
    int actual;
    json_t *json = take_json(send_post(path, body), &actual);

    assert_int_equal(actual, status);
    return json;
}

static const char *pod_body(unsigned i)
{
    return keep("{\"pod_uid\": \"%s\"}", nth_uid(i));
}

static const char *freeze_body(unsigned i)
{
    return keep("{\"pod_uid\": \"%s\", \"reclaim\": \"off\"}", nth_uid(i));
}

static const char *string_in(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static bool is_true(const json_t *json, const char *key)
{
    assert_true(json_is_boolean(json_object_get(json, key)));
    return json_is_true(json_object_get(json, key));
}

static void assert_problem(json_t *json, int status, const char *code)
{
    assert_string_equal(string_in(json, "code"), code);
    assert_int_equal(json_integer_value(json_object_get(json, "status")), status);
    assert_true(strlen(string_in(json, "detail")) > 0);
    json_decref(json);
}

static void assert_state(json_t *json, const char *state, bool already)
{
    assert_string_equal(string_in(json, "state"), state);
    assert_true(is_true(json, "already") == already);
    json_decref(json);
}

/* ---- from outcomes to the wire ---- */

static const struct {
    int status;
    const char *code;
} wire[] = {
    [FREEZER_E_NOT_FOUND] = { 404, "pod_not_found" },
    [FREEZER_E_STALE] = { 409, "stale_generation" },
    [FREEZER_E_CONFLICT] = { 409, "conflict" },
    [FREEZER_E_REFUSED] = { 422, "refused" },
    [FREEZER_E_TIMEOUT] = { 504, "freeze_timeout" },
    [FREEZER_E_BUSY] = { 503, "busy" },
};
static_assert(ARRAY_SIZE(wire) == FREEZER_E_N, "every outcome is walked");

static void test_every_outcome_has_its_status_and_code(void **state)
{
    (void)state;
    for (forced = 1; forced < FREEZER_E_N; forced++) {
        json_t *json = post("/freeze", freeze_body(1), wire[forced].status);
        const json_t *reasons = json_object_get(json, "reasons");
        assert_string_equal(string_in(json, "detail"), keep("this is outcome %d", forced));
        assert_true((reasons != NULL) == (forced == FREEZER_E_REFUSED));
        if (reasons)
            assert_string_equal(json_string_value(json_array_get(reasons, 0)), "own_pod");
        assert_problem(json, wire[forced].status, wire[forced].code);
    }
}

static void test_what_is_broken_says_which_file_and_errno(void **state)
{
    (void)state;
    forced = -EACCES;
    json_t *json = post("/freeze", freeze_body(1), 500);
    assert_string_equal(string_in(json, "errno"), "EACCES");
    assert_non_null(strstr(string_in(json, "detail"), "cgroup.freeze: Permission denied"));
    assert_problem(json, 500, "io_error");
}

/* The same, as they come about. */
static void test_outcomes_as_they_come_about(void **state)
{
    (void)state;
    assert_problem(post("/freeze", freeze_body(1), 404), 404, "pod_not_found");
    assert_problem(post("/thaw", pod_body(1), 404), 404, "pod_not_found");
    assert_problem(post("/status", pod_body(1), 404), 404, "pod_not_found");

    fake_group(pod_path(1), "max", 0);
    json_t *json = post("/freeze", freeze_body(1), 422);
    assert_string_equal(json_string_value(json_array_get(json_object_get(json, "reasons"), 0)),
                        "no_containers");
    assert_problem(json, 422, "refused");

    pod_make(2, 1);
    fake_write(container_path(2, 0), "cgroup.freeze", "1");
    assert_problem(post("/freeze", freeze_body(2), 409), 409, "conflict");
    assert_problem(post("/thaw", pod_body(2), 409), 409, "conflict");

    pod_make(3, 1);
    fake_disk_refuse(FAKE_DISK_PUT, ENOSPC, 1);
    json = post("/freeze", freeze_body(3), 500);
    assert_string_equal(string_in(json, "errno"), "ENOSPC");
    assert_problem(json, 500, "io_error");
}

static const char *generation_body(unsigned i, unsigned generation)
{
    return keep("{\"pod_uid\": \"%s\", \"reclaim\": \"off\", \"generation\": %u}", nth_uid(i),
                generation);
}

static void test_a_stale_generation(void **state)
{
    (void)state;
    pod_make(1, 1);
    assert_state(post("/freeze", generation_body(1, 7), 200), "frozen", false);
    assert_problem(post("/freeze", generation_body(1, 6), 409), 409, "stale_generation");
}

static void test_a_freeze_that_takes_too_long(void **state)
{
    (void)state;
    pod_make(1, 1);
    fake_never_freezes(container_path(1, 0));
    assert_problem(post("/freeze", freeze_body(1), 504), 504, "freeze_timeout");
    assert_false(is_asked_to_freeze(1, 0));
}

static void test_too_many_who_wait(void **state)
{
    struct http_client *clients[POD_WAITERS_MAX + 1];
    unsigned busy = 0;

    (void)state;
    pod_make(1, 1);
    gate_close(&fake_disk_gate);
    for (unsigned i = 0; i <= POD_WAITERS_MAX; i++)
        clients[i] = send_post("/freeze", freeze_body(1));
    for (bool refused = false; !refused;) {
        http_turn(node->event);
        for (unsigned i = 0; i <= POD_WAITERS_MAX; i++)
            refused |= http_client_has_answer(clients[i]);
    }
    gate_open(&fake_disk_gate);
    for (unsigned i = 0; i <= POD_WAITERS_MAX; i++) {
        int status;
        json_decref(take_json(clients[i], &status));
        assert_true(status == 200 || status == 503);
        busy += status == 503;
    }
    assert_int_equal(busy, 1);
}

/* ---- freeze, thaw, status ---- */

static void test_freeze_and_thaw_and_again(void **state)
{
    (void)state;
    pod_make(1, 2);
    assert_state(post("/freeze", freeze_body(1), 200), "frozen", false);
    assert_state(post("/freeze", freeze_body(1), 200), "frozen", true);
    assert_state(post("/thaw", pod_body(1), 200), "running", false);
    AWAIT(node, !find_pod(node, 1));
    assert_state(post("/thaw", pod_body(1), 200), "running", true);
    assert_int_equal(stat_of(node, STAT_HTTP_REQUESTS, STAT_HTTP_2XX), 4);
}

static void test_a_status_has_what_it_promises(void **state)
{
    static const char *const keys[] = { "pod_uid", "state",   "group",      "frozen_at", "reclaim",
                                        "memory",  "wake_on", "containers", "durations" };

    (void)state;
    pod_make(1, 2);
    json_decref(
        post("/freeze",
             keep("{\"pod_uid\": \"%s\", \"reclaim\": \"wait\", \"group\": \"team-a/blog\", "
                  "\"wake_on\": \"connect\"}",
                  nth_uid(1)),
             200));
    json_t *json = post("/status", pod_body(1), 200);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_non_null(json_object_get(json, keys[i]));
    assert_string_equal(string_in(json, "pod_uid"), nth_uid(1));
    assert_string_equal(string_in(json, "state"), "frozen");
    assert_string_equal(string_in(json, "group"), "team-a/blog");
    assert_string_equal(string_in(json, "wake_on"), "connect");
    assert_string_equal(string_in(json, "reclaim"), "done");
    const json_t *memory = json_object_get(json, "memory");
    assert_int_equal(json_integer_value(json_object_get(memory, "before")), 2 * POD_MEMORY);
    assert_int_equal(json_integer_value(json_object_get(memory, "current")), 0);
    assert_int_equal(json_integer_value(json_object_get(memory, "swap")), 2 * POD_MEMORY);
    const json_t *containers = json_object_get(json, "containers");
    assert_int_equal(json_array_size(containers), 2);
    const json_t *container = json_array_get(containers, 0);
    assert_true(is_true(container, "frozen"));
    assert_string_equal(string_in(container, "swap_max"), "max");
    assert_string_equal(string_in(container, "swap_max_original"), "0");
    json_decref(json);
}

static void test_the_status_of_a_pod_that_runs(void **state)
{
    (void)state;
    pod_make(1, 1);
    json_t *json = post("/status", pod_body(1), 200);
    assert_string_equal(string_in(json, "state"), "running");
    assert_true(json_is_null(json_object_get(json, "frozen_at")));
    assert_false(is_true(json, "foreign"));
    json_decref(json);
    fake_write("kubepods", "cgroup.freeze", "1");
    json = post("/status", pod_body(1), 200);
    assert_true(is_true(json, "foreign"));
    assert_string_equal(string_in(json, "state"), "frozen");
    json_decref(json);
}

static void test_the_status_of_every_pod(void **state)
{
    enum { N = 50 };

    (void)state;
    json_t *json = post("/status", "{}", 200);
    assert_int_equal(json_array_size(json_object_get(json, "pods")), 0);
    json_decref(json);
    for (unsigned i = 0; i < N; i++) {
        pod_make(i, 1);
        assert_int_equal(freeze(node, i), 0);
    }
    json = post("/status", "{}", 200);
    const json_t *pods = json_object_get(json, "pods");
    assert_int_equal(json_array_size(pods), N);
    for (unsigned i = 0; i < N; i++)
        assert_string_equal(string_in(json_array_get(pods, i), "pod_uid"), nth_uid(i));
    json_decref(json);
}

static void test_a_thaw_answers_the_freeze_that_it_overtakes(void **state)
{
    int status;

    (void)state;
    pod_make(1, 1);
    fake_never_freezes(container_path(1, 0));
    struct http_client *freezing = send_post("/freeze", freeze_body(1));
    AWAIT(node, is_asked_to_freeze(1, 0));
    assert_state(post("/thaw", pod_body(1), 200), "running", false);
    json_t *json = take_json(freezing, &status);
    assert_int_equal(status, 409);
    assert_problem(json, 409, "conflict");
}

/* ---- groups ---- */

static void freeze_in_group(unsigned i, const char *group)
{
    pod_make(i, 1);
    json_decref(post(
        "/freeze",
        keep("{\"pod_uid\": \"%s\", \"reclaim\": \"off\", \"group\": \"%s\"}", nth_uid(i), group),
        200));
}

static void test_a_group_is_thawed_as_one(void **state)
{
    (void)state;
    freeze_in_group(1, "team-a");
    freeze_in_group(2, "team-a");
    freeze_in_group(3, "team-b");
    json_t *json = post("/thaw", "{\"group\": \"team-a\"}", 200);
    assert_int_equal(json_array_size(json_object_get(json, "pods")), 2);
    assert_false(is_true(json, "already"));
    json_decref(json);
    assert_false(is_asked_to_freeze(1, 0));
    assert_false(is_asked_to_freeze(2, 0));
    assert_true(is_asked_to_freeze(3, 0));
    AWAIT(node, freezer_count(node->freezer) == 1);
    json = post("/thaw", "{\"group\": \"team-a\"}", 200);
    assert_int_equal(json_array_size(json_object_get(json, "pods")), 0);
    assert_true(is_true(json, "already"));
    json_decref(json);
}

static void test_one_of_a_group_that_cannot_be_thawed_keeps_no_other(void **state)
{
    (void)state;
    freeze_in_group(1, "team-a");
    freeze_in_group(2, "team-a");
    fake_refuse(container_path(1, 0), "cgroup.freeze", EIO, 0);
    json_t *json = post("/thaw", "{\"group\": \"team-a\"}", 500);
    assert_string_equal(string_in(json, "errno"), "EIO");
    assert_problem(json, 500, "io_error");
    assert_false(is_asked_to_freeze(2, 0));
}

/* ---- what is refused before anybody is asked ---- */

static void test_hostile_uids(void **state)
{
    static const char *const uids[] = {
        "",
        "..",
        "../../../etc",
        "/",
        "5b0c9a7e-12f4-4c1d-9e3b-000000000001/..",
        "5b0c9a7e-12f4-4c1d-9e3b-000000000001\\u0000",
        "\\u0000",
        "5B0C9A7E-12F4-4C1D-9E3B-000000000001",
        "5b0c9a7e_12f4_4c1d_9e3b_000000000001",
        "\\ud83d\\ude00",
        "%2e%2e%2f",
    };
    static const char *const paths[] = { "/freeze", "/thaw", "/status" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(uids); i++)
        for (size_t k = 0; k < ARRAY_SIZE(paths); k++)
            assert_problem(post(paths[k], keep("{\"pod_uid\": \"%s\"}", uids[i]), 400), 400,
                           "bad_request");
}

static void test_a_megabyte_of_uid(void **state)
{
    const size_t size = (size_t)1 << 20;
    char *body = malloc(size + 32);
    size_t n = (size_t)sprintf(body, "{\"pod_uid\": \"");

    (void)state;
    memset(body + n, 'a', size);
    strcpy(body + n + size, "\"}");
    assert_problem(post("/freeze", body, 413), 413, "payload_too_large");
    free(body);
}

static void test_bodies_that_will_not_do(void **state)
{
    static const struct {
        const char *path, *body;
    } bad[] = {
        { "/freeze", "" },
        { "/freeze", "{}" },
        { "/freeze", "[]" },
        { "/freeze", "{\"pod_uid\": 1}" },
        { "/freeze", "{\"pod_uid\": UID, \"reclaim\": \"later\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"wake_on\": null}" },
        { "/freeze", "{\"pod_uid\": UID, \"generation\": -1}" },
        { "/freeze", "{\"pod_uid\": UID, \"generation\": \"1\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"group\": \"\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"group\": \"a b\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"group\": \"a\\nb\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"path\": \"/\"}" },
        { "/freeze", "{\"pod_uid\": UID, \"pod_uid\": UID}" },
        { "/freeze", "{\"pod_uid\": UID, \"reclaim\": \"wait\", \"reclaim_after\": 5}" },
        { "/thaw", "{}" },
        { "/thaw", "{\"pod_uid\": UID, \"group\": \"a\"}" },
        { "/status", "{\"group\": \"a\"}" },
        { "/status", "null" },
    };

    (void)state;
    pod_make(1, 1);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char body[256] = "";
        for (const char *p = bad[i].body; *p;) {
            bool uid = strncmp(p, "UID", 3) == 0;
            const char *piece = uid ? keep("\"%s\"", nth_uid(1)) : keep("%c", *p);
            strcat(body, piece);
            p += uid ? 3 : 1;
        }
        assert_problem(post(bad[i].path, body, 400), 400, "bad_request");
    }
    assert_int_equal(fake_journal_count(""), 0);
}

static void test_names_and_groups_of_the_largest_size(void **state)
{
    char group[GROUP_SIZE + 1], body[GROUP_SIZE + 128];

    (void)state;
    pod_make(1, 1);
    memset(group, 'g', sizeof group);
    group[GROUP_SIZE] = '\0'; /* one past it */
    snprintf(body, sizeof body, "{\"pod_uid\": \"%s\", \"group\": \"%s\"}", nth_uid(1), group);
    assert_problem(post("/freeze", body, 400), 400, "bad_request");
    group[GROUP_SIZE - 1] = '\0';
    snprintf(body, sizeof body, "{\"pod_uid\": \"%s\", \"group\": \"%s\"}", nth_uid(1), group);
    json_t *json = post("/freeze", body, 200);
    assert_string_equal(string_in(json, "group"), group);
    json_decref(json);
}

/* ---- events ---- */

/* The n-th line of a stream, from 0. */
static json_t *line_of(struct http_client *client, unsigned n)
{
    for (;;) {
        const char *line = strstr(client->in, "{\"");
        for (unsigned i = 0; line && i < n; i++)
            line = strstr(line + 1, "\n{\"")     ? strstr(line + 1, "\n{\"") + 1
                   : strstr(line + 1, "\r\n{\"") ? strstr(line + 1, "\r\n{\"") + 2
                                                 : NULL;
        if (line && strchr(line, '\n'))
            return json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
        http_turn(node->event);
    }
}

static void assert_line(struct http_client *client, unsigned n, const char *type, uint64_t seq)
{
    json_t *json = line_of(client, n);

    assert_string_equal(string_in(json, "type"), type);
    assert_int_equal(json_integer_value(json_object_get(json, "seq")), seq);
    assert_non_null(string_in(json, "time"));
    json_decref(json);
}

static void test_events_are_followed(void **state)
{
    (void)state;
    pod_make(1, 1);
    struct http_client *client = send_get("/events");
    json_t *hello = line_of(client, 0);
    assert_string_equal(string_in(hello, "type"), "hello");
    assert_string_equal(string_in(hello, "epoch"), events_epoch(node->events));
    json_decref(hello);
    freeze(node, 1);
    assert_line(client, 1, "frozen", 1);
    thaw(node, 1);
    assert_line(client, 2, "thawed", 2);
    http_client_close(client);
}

static void test_events_are_replayed(void **state)
{
    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    thaw(node, 1);
    AWAIT(node, !find_pod(node, 1));
    freeze(node, 1);
    struct http_client *client = send_get("/events?since=1");
    assert_line(client, 0, "hello", 1);
    assert_line(client, 1, "thawed", 2);
    assert_line(client, 2, "frozen", 3);
    http_client_close(client);
    client = send_get("/events?since=999"); /* of another epoch: nothing but what comes */
    assert_line(client, 0, "hello", 3);
    thaw(node, 1);
    assert_line(client, 1, "thawed", 4);
    http_client_close(client);
}

static void test_a_reader_is_told_what_it_missed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EVENTS_MAX + 5; i++)
        events_emit(node->events, json_pack("{ss}", "type", "drift"));
    struct http_client *client = send_get("/events?since=0");
    assert_line(client, 0, "hello", 0);
    json_t *lost = line_of(client, 1);
    assert_string_equal(string_in(lost, "type"), "lost");
    assert_int_equal(json_integer_value(json_object_get(lost, "missed")), 5);
    json_decref(lost);
    assert_line(client, 2, "drift", 6);
    http_client_close(client);
}

/* ---- health and metrics ---- */

static int get(const char *path, char **ret_body)
{
    struct http_client *client = send_get(path);
    struct http_answer answer = http_client_answer(client);
    int status = answer.status;

    *ret_body = strdup(answer.body);
    http_answer_free(&answer);
    http_client_close(client);
    return status;
}

static void test_health(void **state)
{
    char *body;

    (void)state;
    assert_int_equal(get("/healthz", &body), 200);
    assert_non_null(strstr(body, "ok"));
    free(body);
    assert_int_equal(get("/readyz", &body), 200);
    free(body);
    node->selftest.n = 1;
    node->selftest.checks[0].name = "freezer";
    node->selftest.checks[0].verdict = SELFTEST_FAIL;
    strcpy(node->selftest.checks[0].detail, "it is winter already");
    assert_int_equal(get("/readyz", &body), 503);
    assert_non_null(strstr(body, "it is winter already"));
    free(body);
}

static void test_metrics_have_every_family(void **state)
{
    char *body;

    (void)state;
    pod_make(1, 1);
    freeze(node, 1);
    assert_int_equal(get("/metrics", &body), 200);
    for (unsigned i = 0; i < STATS_N; i++)
        assert_non_null(strstr(body, keep("# TYPE %s ", stats_families[i].name)));
    assert_non_null(strstr(body, "freeze_agent_pods{state=\"frozen\"} 1\n"));
    free(body);
}

/* A POST writes, and asks for the right to; what is public is health only. */
static void test_routes_ask_for_what_they_need(void **state)
{
    (void)state;
    for (size_t i = 0; i < api_n_routes; i++) {
        const struct http_route *route = &api_routes[i];
        bool health = strcmp(route->path, "/healthz") == 0 || strcmp(route->path, "/readyz") == 0;
        bool writes = strcmp(route->path, "/freeze") == 0 || strcmp(route->path, "/thaw") == 0;
        assert_int_equal(route->access, health   ? HTTP_ACCESS_PUBLIC
                                        : writes ? HTTP_ACCESS_WRITE
                                                 : HTTP_ACCESS_READ);
        assert_true(route->args_size <= HTTP_ARGS_MAX);
    }
}

/* ---- the end ---- */

static void assert_going_away(struct http_client *client)
{
    assert_non_null(strstr(client->in, " 503 "));
    http_client_close(client);
}

/* The agent stops while requests wait for the disk, which is then done: nobody may be told any
 * more. */
static void test_the_end_answers_who_waits_and_forgets_them(void **state)
{
    struct http_client *clients[4];
    sd_event *loop = sd_event_ref(node->event);

    (void)state;
    freeze_in_group(1, "team-a");
    freeze_in_group(2, "team-b");
    pod_make(3, 1);
    clients[3] = send_get("/events");
    json_decref(line_of(clients[3], 0));
    gate_close(&fake_disk_gate);
    clients[0] = send_post("/freeze", freeze_body(3));
    gate_await(&fake_disk_gate, 0);
    AWAIT(node, find_pod(node, 3));
    clients[1] = send_post("/thaw", "{\"group\": \"team-a\"}");
    clients[2] = send_post("/thaw", pod_body(2));
    AWAIT(node, find_pod(node, 1)->state == POD_THAWING && find_pod(node, 2)->state == POD_THAWING);
    gate_await(&fake_disk_gate, 1);
    gate_open(&fake_disk_gate);
    node_stop(node);
    http_settle(loop);
    for (unsigned i = 0; i < 3; i++)
        assert_going_away(clients[i]);
    http_client_close(clients[3]);
    sd_event_unref(loop);
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_HASTY(name) cmocka_unit_test_setup_teardown(name, setup_hasty, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_outcome_has_its_status_and_code),
        TEST(test_what_is_broken_says_which_file_and_errno),
        TEST(test_outcomes_as_they_come_about),
        TEST(test_a_stale_generation),
        TEST_HASTY(test_a_freeze_that_takes_too_long),
        TEST(test_too_many_who_wait),
        TEST(test_freeze_and_thaw_and_again),
        TEST(test_a_status_has_what_it_promises),
        TEST(test_the_status_of_a_pod_that_runs),
        TEST(test_the_status_of_every_pod),
        TEST(test_a_thaw_answers_the_freeze_that_it_overtakes),
        TEST(test_a_group_is_thawed_as_one),
        TEST(test_one_of_a_group_that_cannot_be_thawed_keeps_no_other),
        TEST(test_hostile_uids),
        TEST(test_a_megabyte_of_uid),
        TEST(test_bodies_that_will_not_do),
        TEST(test_names_and_groups_of_the_largest_size),
        TEST(test_events_are_followed),
        TEST(test_events_are_replayed),
        TEST(test_a_reader_is_told_what_it_missed),
        TEST(test_health),
        TEST(test_metrics_have_every_family),
        cmocka_unit_test(test_routes_ask_for_what_they_need),
        TEST(test_the_end_answers_who_waits_and_forgets_them),
    };

    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
