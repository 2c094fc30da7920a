#include "agent/api.h"

#include <string.h>

#include "agent/limits.h"
#include "agent/status.h"
#include "agent/streams.h"
#include "common/log.h"
#include "common/loop.h"

/* A request that was not answered in its handler. */
struct held {
    struct held *next, **link;       /* of the api */
    void (*drop)(struct held *held); /* forgets and frees it, without an answer */
};

struct api {
    struct api_config config;
    struct http_server *server;
    struct held *held;
};

static void held_add(struct api *api, struct held *held, void (*drop)(struct held *held))
{
    held->drop = drop;
    held->next = api->held;
    held->link = &api->held;
    if (held->next)
        held->next->link = &held->next;
    api->held = held;
}

static void held_remove(struct held *held)
{
    *held->link = held->next;
    if (held->next)
        held->next->link = held->link;
}

/* ---- from outcomes to the wire ---- */

static const struct {
    unsigned status;
    const char *code;
} wire[] = {
    [0] = { 500, "io_error" },
    [FREEZER_E_NOT_FOUND] = { 404, "pod_not_found" },
    [FREEZER_E_STALE] = { 409, "stale_generation" },
    [FREEZER_E_CONFLICT] = { 409, "conflict" },
    [FREEZER_E_REFUSED] = { 422, "refused" },
    [FREEZER_E_TIMEOUT] = { 504, "freeze_timeout" },
    [FREEZER_E_BUSY] = { 503, "busy" },
};
static_assert(ARRAY_SIZE(wire) == FREEZER_E_N, "every outcome has a status and a code");

static json_t *problem_members(int r, const char *reason, const struct error *error)
{
    if (r == FREEZER_E_REFUSED && reason)
        return json_pack("{s[s]}", "reasons", reason);
    if (r < 0)
        return json_pack("{ss}", "errno", strerrorname_np(error->err));
    return NULL;
}

static void reply_failure(struct http_request *request, int r, const char *reason,
                          const struct error *error)
{
    int outcome = r < 0 ? 0 : r;

    http_reply_problem(request, wire[outcome].status, wire[outcome].code,
                       problem_members(r, reason, error), "%s", error->msg);
}

/* The status of a pod that is in the table, or of one that is not. NULL when there is none. */
static json_t *look_up_status(struct api *api, const char *uid, int *ret_r, const char **ret_reason,
                              struct error *error)
{
    const struct pod *pod = freezer_find(api->config.freezer, uid);
    struct pod_cgroups cgroups = { .pod_fd = -1 };
    json_t *status;

    if (!pod)
        *ret_r = freezer_discover(api->config.freezer, uid, &cgroups, error);
    if (!pod && *ret_r != 0 && *ret_r != POD_E_EMPTY) {
        *ret_r = freezer_outcome_of(*ret_r, ret_reason);
        return NULL;
    }
    status = pod ? status_of(pod) : status_of_cgroups(&cgroups);
    pod_clear(&cgroups);
    *ret_r = status ? 0 : error_set(error, ENOMEM, "status of pod %s", uid);
    return status;
}

/* ---- one pod ---- */

/* A request that waits for a pod. */
struct call {
    struct held held;
    struct freezer_waiter waiter;
    struct api *api;
    struct http_request *request;
    char uid[POD_UID_SIZE];
    bool in_handler; /* the handler still holds it */
    bool answered;
};

static void reply_status(struct call *call, const struct pod *pod, bool already)
{
    struct error error = ERROR_INIT;
    const char *reason = NULL;
    int r = 0;
    json_t *status =
        pod ? status_of(pod) : look_up_status(call->api, call->uid, &r, &reason, &error);

    if (!status) {
        reply_failure(call->request, r ? r : error_set(&error, ENOMEM, "status"), reason, &error);
        return;
    }
    json_object_set_new(status, "already", json_boolean(already));
    http_reply_json(call->request, 200, status);
}

static void call_drop(struct held *held)
{
    struct call *call = container_of(held, struct call, held);

    held_remove(held);
    freezer_forget(&call->waiter);
    free(call);
}

static void on_done(struct freezer_waiter *waiter, int r, bool already, const struct pod *pod,
                    const struct error *error)
{
    struct call *call = container_of(waiter, struct call, waiter);

    if (r == 0)
        reply_status(call, pod, already);
    else
        reply_failure(call->request, r, waiter->reason, error);
    call->answered = true;
    if (!call->in_handler)
        call_drop(&call->held);
}

/* It takes longer than a caller waits: tell what is known. */
static void on_deadline(struct http_request *request, void *userdata)
{
    struct call *call = userdata;
    const struct pod *pod = freezer_find(call->api->config.freezer, call->uid);

    (void)request;
    freezer_forget(&call->waiter);
    reply_status(call, pod, call->waiter.already);
    call_drop(&call->held);
}

static struct call *call_new(struct api *api, struct http_request *request, const char *uid)
{
    struct call *call = calloc(1, sizeof *call);

    if (!call) {
        http_reply_problem(request, 503, "busy", NULL, "out of memory");
        return NULL;
    }
    call->waiter.done = on_done;
    call->api = api;
    call->request = request;
    call->in_handler = true;
    strcpy(call->uid, uid);
    held_add(api, &call->held, call_drop);
    return call;
}

/* The handler's end: the answer was given, or is waited for. */
static void call_settle(struct call *call)
{
    call->in_handler = false;
    if (call->answered)
        call_drop(&call->held);
    else
        http_request_hold(call->request, RECLAIM_WAIT_USEC, on_deadline, call);
}

/* ---- POST /freeze ---- */

static const char *check_group(const char *group)
{
    for (const char *p = group; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-", *p))
            return "may hold letters, digits and \"._/-\" only";
    return *group ? NULL : "is empty";
}

static const struct schema_field freeze_fields[] = {
    { .name = "pod_uid",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct freeze_request, pod_uid),
      .size = POD_UID_SIZE,
      .required = true,
      .check = layout_check_uid },
    { .name = "reclaim",
      .type = SCHEMA_ENUM,
      .offset = offsetof(struct freeze_request, reclaim),
      .names = reclaim_mode_names },
    { .name = "reclaim_after",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct freeze_request, reclaim_after),
      .max = RECLAIM_AFTER_MAX },
    { .name = "wake_on",
      .type = SCHEMA_ENUM,
      .offset = offsetof(struct freeze_request, wake_on),
      .names = wake_on_names },
    { .name = "group",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct freeze_request, group),
      .size = GROUP_SIZE,
      .check = check_group },
    { .name = "generation",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct freeze_request, generation) },
};

static void handle_freeze(struct http_request *request, const void *args, void *userdata)
{
    const struct freeze_request *freeze = args;
    struct api *api = userdata;
    struct call *call;

    if (freeze->reclaim_after && freeze->reclaim != RECLAIM_BACKGROUND) {
        http_reply_problem(request, 400, "bad_request", NULL,
                           "field \"reclaim_after\" goes with \"reclaim\": \"background\" only");
        return;
    }
    call = call_new(api, request, freeze->pod_uid);
    if (!call)
        return;
    freezer_freeze(api->config.freezer, freeze, &call->waiter);
    call_settle(call);
}

/* ---- POST /thaw ---- */

struct thaw_args {
    char pod_uid[POD_UID_SIZE];
    char group[GROUP_SIZE];
    uint64_t generation;
};

static const struct schema_field thaw_fields[] = {
    { .name = "pod_uid",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct thaw_args, pod_uid),
      .size = POD_UID_SIZE,
      .check = layout_check_uid },
    { .name = "group",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct thaw_args, group),
      .size = GROUP_SIZE,
      .check = check_group },
    { .name = "generation", .type = SCHEMA_UINT, .offset = offsetof(struct thaw_args, generation) },
};

static void thaw_pod(struct api *api, struct http_request *request, const struct thaw_args *args)
{
    struct call *call = call_new(api, request, args->pod_uid);

    if (!call)
        return;
    freezer_thaw(api->config.freezer, args->pod_uid, args->generation, &call->waiter);
    call_settle(call);
}

/* A request that thaws every pod of a group: all are thawed in the call, then waited for. */
struct group_call {
    struct held held;
    struct http_request *request;
    unsigned n; /* members */
    json_t *pods;
    unsigned pending; /* waiters, and one for the handler */
    bool failed;
    struct error error;
    struct group_member {
        struct freezer_waiter waiter;
        struct group_call *call;
        char uid[POD_UID_SIZE];
    } members[];
};

static void group_drop(struct held *held)
{
    struct group_call *call = container_of(held, struct group_call, held);

    held_remove(held);
    for (unsigned i = 0; i < call->n; i++)
        freezer_forget(&call->members[i].waiter);
    json_decref(call->pods);
    free(call);
}

/* What is known: every pod that is thawed. */
static void group_answer(struct group_call *call)
{
    bool already = json_array_size(call->pods) == 0;

    if (call->failed)
        reply_failure(call->request, -EIO, NULL, &call->error);
    else
        http_reply_json(call->request, 200,
                        json_pack("{sO sb}", "pods", call->pods, "already", already));
    group_drop(&call->held);
}

static void group_unref(struct group_call *call)
{
    if (--call->pending == 0)
        group_answer(call);
}

static void on_group_deadline(struct http_request *request, void *userdata)
{
    (void)request;
    group_answer(userdata);
}

static void on_member_done(struct freezer_waiter *waiter, int r, bool already,
                           const struct pod *pod, const struct error *error)
{
    struct group_member *member = container_of(waiter, struct group_member, waiter);
    struct group_call *call = member->call;
    json_t *status = pod ? status_of(pod) : NULL;

    if (status) {
        json_object_set_new(status, "already", json_boolean(already));
        json_array_append_new(call->pods, status);
    }
    if (r < 0 && !call->failed) {
        call->failed = true;
        call->error = *error;
    }
    group_unref(call);
}

static unsigned collect_group(struct freezer *freezer, const char *group,
                              struct group_member *members)
{
    unsigned n = 0;

    for (struct pod *pod = freezer_next(freezer, NULL); pod; pod = freezer_next(freezer, pod)) {
        if (strcmp(pod->cgroups.record.group, group) != 0)
            continue;
        if (members)
            strcpy(members[n].uid, pod->cgroups.record.pod_uid);
        n++;
    }
    return n;
}

static void thaw_group(struct api *api, struct http_request *request, const struct thaw_args *args)
{
    struct freezer *freezer = api->config.freezer;
    unsigned n = collect_group(freezer, args->group, NULL);
    struct group_call *call = calloc(1, sizeof *call + n * sizeof call->members[0]);

    if (!call) {
        http_reply_problem(request, 503, "busy", NULL, "out of memory");
        return;
    }
    call->request = request;
    call->pods = json_array();
    call->n = n;
    call->pending = n + 1;
    held_add(api, &call->held, group_drop);
    collect_group(freezer, args->group, call->members);
    for (unsigned i = 0; i < n; i++) {
        call->members[i].call = call;
        call->members[i].waiter.done = on_member_done;
        freezer_thaw(freezer, call->members[i].uid, args->generation, &call->members[i].waiter);
    }
    if (call->pending > 1)
        http_request_hold(request, RECLAIM_WAIT_USEC, on_group_deadline, call);
    group_unref(call);
}

static void handle_thaw(struct http_request *request, const void *args, void *userdata)
{
    const struct thaw_args *thaw = args;

    if (!*thaw->pod_uid == !*thaw->group)
        http_reply_problem(request, 400, "bad_request", NULL,
                           "either \"pod_uid\" or \"group\" is needed, and not both");
    else if (*thaw->pod_uid)
        thaw_pod(userdata, request, thaw);
    else
        thaw_group(userdata, request, thaw);
}

/* ---- POST /status, GET /events ---- */

struct status_args {
    char pod_uid[POD_UID_SIZE];
};

static const struct schema_field status_fields[] = {
    { .name = "pod_uid",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct status_args, pod_uid),
      .size = POD_UID_SIZE,
      .check = layout_check_uid },
};

static void handle_status(struct http_request *request, const void *args, void *userdata)
{
    const struct status_args *status = args;
    struct error error = ERROR_INIT;
    struct api *api = userdata;
    const char *reason = NULL;
    int r;

    if (!*status->pod_uid) {
        stream_statuses(request, api->config.freezer);
        return;
    }
    json_t *json = look_up_status(api, status->pod_uid, &r, &reason, &error);
    if (json)
        http_reply_json(request, 200, json);
    else
        reply_failure(request, r, reason, &error);
}

struct events_args {
    uint64_t since;
    bool has_since;
};

static const struct schema_field events_fields[] = {
    { .name = "since",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct events_args, since),
      .present_offset = offsetof(struct events_args, has_since) },
};

static void handle_events(struct http_request *request, const void *args, void *userdata)
{
    const struct events_args *events = args;
    struct api *api = userdata;
    struct events *ring = freezer_config(api->config.freezer)->events;

    stream_events(request, api->config.event, ring,
                  events->has_since ? events->since : events_last(ring));
}

/* ---- health and metrics ---- */

static void handle_healthz(struct http_request *request, const void *args, void *userdata)
{
    (void)args;
    (void)userdata;
    http_reply_json(request, 200, json_pack("{ss}", "status", "ok"));
}

static void handle_readyz(struct http_request *request, const void *args, void *userdata)
{
    const struct selftest *selftest = ((struct api *)userdata)->config.selftest;

    (void)args;
    http_reply_json(request, selftest_worst(selftest) < SELFTEST_FAIL ? 200 : 503,
                    selftest_to_json(selftest));
}

static void handle_metrics(struct http_request *request, const void *args, void *userdata)
{
    struct api *api = userdata;
    struct metrics *metrics = freezer_config(api->config.freezer)->metrics;
    struct error error = ERROR_INIT;
    char *text;
    size_t len;

    (void)args;
    freezer_gauge(api->config.freezer);
    int r = metrics_render(metrics, &text, &len, &error);
    if (r < 0)
        reply_failure(request, r, NULL, &error);
    else
        http_reply_text(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, len);
}

/* ---- the table ---- */

#define FIELDS_OF(table) .fields = table, .n_fields = ARRAY_SIZE(table)

const struct http_route api_routes[] = {
    { HTTP_POST, "/freeze", HTTP_ACCESS_WRITE, FIELDS_OF(freeze_fields),
      .args_size = sizeof(struct freeze_request), .handle = handle_freeze },
    { HTTP_POST, "/thaw", HTTP_ACCESS_WRITE, FIELDS_OF(thaw_fields),
      .args_size = sizeof(struct thaw_args), .handle = handle_thaw },
    { HTTP_POST, "/status", HTTP_ACCESS_READ, FIELDS_OF(status_fields),
      .args_size = sizeof(struct status_args), .handle = handle_status },
    { HTTP_GET, "/events", HTTP_ACCESS_READ, FIELDS_OF(events_fields),
      .args_size = sizeof(struct events_args), .handle = handle_events },
    { HTTP_GET, "/healthz", HTTP_ACCESS_PUBLIC, .handle = handle_healthz },
    { HTTP_GET, "/readyz", HTTP_ACCESS_PUBLIC, .handle = handle_readyz },
    { HTTP_GET, "/metrics", HTTP_ACCESS_READ, .handle = handle_metrics },
};
const size_t api_n_routes = ARRAY_SIZE(api_routes);

/* ---- the object ---- */

static enum http_verdict authorize(const struct http_caller *caller, enum http_access access,
                                   void *userdata)
{
    return auth_check(((struct api *)userdata)->config.auth, caller, access);
}

static void on_answered(const char *path, unsigned status, uint64_t usec, void *userdata)
{
    struct api *api = userdata;
    struct metrics *metrics = freezer_config(api->config.freezer)->metrics;
    enum stat_http series = status < 400   ? STAT_HTTP_2XX
                            : status < 500 ? STAT_HTTP_4XX
                                           : STAT_HTTP_5XX;

    metrics_add(metrics, STAT_HTTP_REQUESTS, series, 1);
    metrics_observe(metrics, STAT_HTTP_SECONDS, 0, (double)usec / USEC_PER_SEC);
    log_debug("%s: %u in %.2f ms", path ? path : "(no route)", status,
              (double)usec / USEC_PER_MSEC);
}

int api_open(struct api **ret, const struct api_config *config, struct error *error)
{
    struct api *api = calloc(1, sizeof *api);
    struct http_config http = { .routes = api_routes,
                                .n_routes = ARRAY_SIZE(api_routes),
                                .userdata = api,
                                .authorize = authorize,
                                .on_answered = on_answered,
                                .body_max = BODY_SIZE_MAX,
                                .connections_max = CONNECTIONS_MAX,
                                .idle_timeout_sec = CONNECTION_IDLE_SEC,
                                .streams_max = STREAMS_MAX };

    if (!api)
        return error_set(error, ENOMEM, "open the API");
    api->config = *config;
    int r = http_server_open(&api->server, config->event, &http, error);
    if (r < 0) {
        free(api);
        return r;
    }
    *ret = api;
    return 0;
}

struct api *api_close(struct api *api)
{
    if (api) {
        http_server_close(api->server);
        while (api->held)
            api->held->drop(api->held);
    }
    free(api);
    return NULL;
}

struct http_server *api_server(struct api *api)
{
    return api->server;
}
