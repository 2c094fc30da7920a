#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "common/loop.h"
#include "http_internal.h"

#define BODY_UNKNOWN UINT64_MAX /* chunked */
#define BODY_FIRST   ((size_t)1024)

static const struct http_refusal bad_request = { .status = 400, .code = "bad_request" };
static const struct http_refusal too_large = { .status = 413, .code = "payload_too_large" };
static const struct http_refusal unavailable = { .status = 503, .code = "unavailable" };

/* ---- the head ---- */

/* The fields that we act on. Each may come once: RFC 9112, 3.2 and 6.3, asks that of three, and two
 * answers to who calls, or to what the body is, are one too many. */
enum field {
    FIELD_AUTHORIZATION,
    FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE,
    FIELD_EXPECT,
    FIELD_HOST,
    FIELD_ORIGIN,
    FIELD_TRANSFER_ENCODING,
    N_FIELDS,
};

static const char *const field_names[] = {
    [FIELD_AUTHORIZATION] = MHD_HTTP_HEADER_AUTHORIZATION,
    [FIELD_CONTENT_LENGTH] = MHD_HTTP_HEADER_CONTENT_LENGTH,
    [FIELD_CONTENT_TYPE] = MHD_HTTP_HEADER_CONTENT_TYPE,
    [FIELD_EXPECT] = MHD_HTTP_HEADER_EXPECT,
    [FIELD_HOST] = MHD_HTTP_HEADER_HOST,
    [FIELD_ORIGIN] = MHD_HTTP_HEADER_ORIGIN,
    [FIELD_TRANSFER_ENCODING] = MHD_HTTP_HEADER_TRANSFER_ENCODING,
};
static_assert(ARRAY_SIZE(field_names) == N_FIELDS, "every field has a name");

struct head {
    const char *path;
    const char *method;
    bool http10;
    bool is_get; /* or HEAD */
    unsigned n;
    const char *fields[N_FIELDS];
    const char *twice; /* the name of a field that came twice */
    bool malformed;
    uint64_t body; /* bytes to come, or BODY_UNKNOWN */
};

/* RFC 9110, 5.6.2. A blank between name and colon would hide a field from us, but perhaps not from
 * whoever stands in front of us. */
static bool is_token(const char *name, size_t size)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    return size > 0 && strlen(name) == size && strspn(name, token) == size;
}

static bool is_field_value(const char *value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static enum MHD_Result on_field(void *userdata, enum MHD_ValueKind kind, const char *name,
                                size_t name_size, const char *value, size_t value_size)
{
    struct head *head = userdata;

    (void)kind;
    head->n++;
    if (!is_token(name, name_size) || !is_field_value(value, value_size))
        head->malformed = true;
    for (int i = 0; i < N_FIELDS; i++) {
        if (strcasecmp(name, field_names[i]))
            continue;
        if (head->fields[i])
            head->twice = field_names[i];
        head->fields[i] = value ? value : "";
    }
    return MHD_YES;
}

static bool check_size(struct http_request *request, struct head *head)
{
    static const struct http_refusal refusal = { .status = 431, .code = "headers_too_large" };
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

    if (head->n > HTTP_HEADERS_MAX || !info || info->header_size > HTTP_HEADERS_MAX_SIZE)
        return http_request_refuse(request, &refusal, "at most %d headers and %zu bytes",
                                   HTTP_HEADERS_MAX, HTTP_HEADERS_MAX_SIZE);
    return true;
}

static bool check_fields(struct http_request *request, struct head *head)
{
    if (head->malformed)
        return http_request_refuse(request, &bad_request, "malformed header");
    if (head->twice)
        return http_request_refuse(request, &bad_request, "%s comes twice", head->twice);
    if (!head->fields[FIELD_HOST] && !head->http10)
        return http_request_refuse(request, &bad_request, "no Host");
    return true;
}

/* Who reads another framing than we do sees another next request. */
static bool check_framing(struct http_request *request, struct head *head)
{
    const char *encoding = head->fields[FIELD_TRANSFER_ENCODING];
    const char *length = head->fields[FIELD_CONTENT_LENGTH];

    if (encoding && length)
        return http_request_refuse(request, &bad_request,
                                   "both Content-Length and Transfer-Encoding");
    if (encoding && (head->http10 || strcasecmp(encoding, "chunked")))
        return http_request_refuse(request, &bad_request, "Transfer-Encoding can only be chunked");
    if (length && (!*length || length[strspn(length, "0123456789")]))
        return http_request_refuse(request, &bad_request, "Content-Length is no number");

    /* An overflow is as good as any number that is too large. */
    head->body = encoding ? BODY_UNKNOWN : length ? strtoull(length, NULL, 10) : 0;
    request->drain = (encoding || head->body <= request->server->config.body_max) &&
                     head->body > 0 && !head->fields[FIELD_EXPECT];
    return true;
}

static bool check_route(struct http_request *request, struct head *head)
{
    static const struct http_refusal not_found = { .status = 404, .code = "not_found" };
    const struct http_config *config = &request->server->config;
    enum http_method method = head->is_get ? HTTP_GET : HTTP_POST;
    bool known = head->is_get || !strcmp(head->method, MHD_HTTP_METHOD_POST);
    const char *allow = NULL;

    /* A path of ours needs no escapes; whoever filters paths in front of us may not read them. */
    for (size_t i = 0; i < config->n_routes && !request->escaped; i++) {
        const struct http_route *route = &config->routes[i];
        const char *methods = route->method == HTTP_GET ? "GET, HEAD" : "POST";

        if (strcmp(route->path, head->path))
            continue;
        if (known && route->method == method)
            request->route = route;
        allow = allow ? "GET, HEAD, POST" : methods;
    }
    if (request->route)
        return true;
    if (!allow)
        return http_request_refuse(request, &not_found, "no such path");
    return http_request_refuse(request,
                               &(struct http_refusal){ .status = 405,
                                                       .code = "method_not_allowed",
                                                       .header = MHD_HTTP_HEADER_ALLOW,
                                                       .value = allow },
                               "only %s", allow);
}

static const char *bearer_token(const char *authorization)
{
    static const char scheme[] = "Bearer ";

    if (!authorization || strncasecmp(authorization, scheme, strlen(scheme)))
        return NULL;
    const char *token = authorization + strlen(scheme);
    token += strspn(token, " ");
    return *token ? token : NULL;
}

static bool check_caller(struct http_request *request, struct head *head)
{
    static const struct http_refusal unauthorized = { .status = 401,
                                                      .code = "unauthorized",
                                                      .header = MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                                      .value = "Bearer" };
    static const struct http_refusal forbidden = { .status = 403, .code = "forbidden" };
    const struct http_config *config = &request->server->config;
    struct http_caller caller = request->connection->caller;

    if (request->route->access == HTTP_ACCESS_PUBLIC)
        return true;
    caller.token = bearer_token(head->fields[FIELD_AUTHORIZATION]);
    switch (config->authorize(&caller, request->route->access, config->userdata)) {
    case HTTP_ALLOW:
        return true;
    case HTTP_UNAUTHORIZED:
        return http_request_refuse(request, &unauthorized, "a bearer token is needed");
    case HTTP_FORBIDDEN:
        break;
    }
    return http_request_refuse(request, &forbidden, "not allowed");
}

static bool is_type(const char *content_type, const char *type)
{
    size_t len = strcspn(content_type, "; \t");

    return len == strlen(type) && !strncasecmp(content_type, type, len);
}

/* A form's type is what `curl -d` says of everything. A page in a browser could say so, too, or say
 * nothing, and be sent without asking first; but a browser then says where the page is from. */
static bool is_json(const struct head *head)
{
    const char *content_type = head->fields[FIELD_CONTENT_TYPE];

    if (content_type && is_type(content_type, "application/json"))
        return true;
    return !head->fields[FIELD_ORIGIN] &&
           (!content_type || is_type(content_type, "application/x-www-form-urlencoded"));
}

static bool check_body(struct http_request *request, struct head *head)
{
    static const struct http_refusal unsupported = { .status = 415,
                                                     .code = "unsupported_media_type" };
    size_t max = request->server->config.body_max;

    if (head->is_get && head->body > 0)
        return http_request_refuse(request, &bad_request, "a body where none is expected");
    if (head->body > 0 && !is_json(head))
        return http_request_refuse(request, &unsupported, "the body must be application/json");
    if (head->body != BODY_UNKNOWN && head->body > max)
        return http_request_refuse(request, &too_large, "at most %zu bytes", max);
    return true;
}

/* In this order: who may not call learns nothing but that the path exists. */
static bool (*const checks[])(struct http_request *request, struct head *head) = {
    check_size, check_fields, check_framing, check_route, check_caller, check_body,
};

static bool take_head(struct http_request *request, const char *path, const char *method,
                      const char *version)
{
    struct head head = {
        .path = path,
        .method = method,
        .http10 = !strcmp(version, MHD_HTTP_VERSION_1_0),
    };

    request->is_head = !strcmp(method, MHD_HTTP_METHOD_HEAD);
    head.is_get = request->is_head || !strcmp(method, MHD_HTTP_METHOD_GET);

    MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, on_field, &head);
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
        if (!checks[i](request, &head))
            return false;
    return true;
}

/* ---- the body ---- */

static bool keep(struct http_request *request, const char *data, size_t size)
{
    size_t needed = request->body_len + size;

    if (needed > request->body_size) {
        size_t max = request->server->config.body_max;
        size_t grown = request->body_size ? 2 * request->body_size : BODY_FIRST;
        if (grown > max)
            grown = max;
        if (grown < needed)
            grown = needed;

        char *body = realloc(request->body, grown);
        if (!body)
            return false;
        request->body = body;
        request->body_size = grown;
    }
    memcpy(request->body + request->body_len, data, size);
    request->body_len = needed;
    return true;
}

static enum MHD_Result take_body(struct http_request *request, const char *data, size_t *size)
{
    size_t max = request->server->config.body_max;

    request->body_seen += *size;
    if (request->body_seen > max && request->body_seen - max > HTTP_DRAIN_MAX)
        return MHD_NO;
    if (!request->answered && request->body_seen > max)
        http_request_refuse(request, &too_large, "at most %zu bytes", max);
    else if (!request->answered && !keep(request, data, *size))
        http_request_refuse(request, &unavailable, "no memory");
    *size = 0;
    return MHD_YES;
}

/* ---- the handler ---- */

struct query {
    const struct schema_field *fields;
    size_t n;
    void *args;
    uint64_t seen;
    int r;
    struct error *error;
};

static int take_pair(struct query *query, const char *name, const char *value)
{
    int i = schema_find(query->fields, query->n, name);

    if (i >= 0 && query->seen & (uint64_t)1 << i)
        return error_outcome(query->error, SCHEMA_E_FIELD, "field \"%s\": comes twice", name);
    if (i >= 0)
        query->seen |= (uint64_t)1 << i;
    return schema_decode_pair(query->fields, query->n, name, value, query->args, query->error);
}

static enum MHD_Result on_pair(void *userdata, enum MHD_ValueKind kind, const char *name,
                               size_t name_size, const char *value, size_t value_size)
{
    struct query *query = userdata;

    (void)kind;
    if (strlen(name) != name_size || (value && strlen(value) != value_size))
        query->r = error_outcome(query->error, SCHEMA_E_SYNTAX, "the query holds a NUL");
    else
        query->r = take_pair(query, name, value);
    return query->r == 0 ? MHD_YES : MHD_NO;
}

/* With a body, the query has no fields: what comes there is unknown. */
static int decode_query(struct http_request *request, void *args, struct error *error)
{
    const struct http_route *route = request->route;
    bool is_get = route->method == HTTP_GET;
    struct query query = {
        .fields = is_get ? route->fields : NULL,
        .n = is_get ? route->n_fields : 0,
        .args = args,
        .error = error,
    };

    MHD_get_connection_values_n(request->mhd, MHD_GET_ARGUMENT_KIND, on_pair, &query);
    if (query.r)
        return query.r;
    return schema_check_required(query.fields, query.n, query.seen, error);
}

static int decode(struct http_request *request, void *args, struct error *error)
{
    const struct http_route *route = request->route;

    int r = decode_query(request, args, error);
    if (r || route->method == HTTP_GET)
        return r;
    if (request->body_len == 0 && route->n_fields == 0)
        return 0;
    if (request->body_len == 0)
        return error_outcome(error, SCHEMA_E_SYNTAX, "no body: a JSON object is expected");
    return schema_decode_json(route->fields, route->n_fields, request->body, request->body_len,
                              args, error);
}

static void handle(struct http_request *request)
{
    _Alignas(max_align_t) unsigned char args[HTTP_ARGS_MAX];
    const struct http_route *route = request->route;
    struct error error = ERROR_INIT;

    memset(args, 0, route->args_size);
    if (route->defaults)
        route->defaults(args);

    int r = decode(request, args, &error);
    if (r < 0) {
        http_reply_problem(request, 500, "internal_error", NULL, "%s", error.msg);
        return;
    }
    if (r > 0) {
        http_reply_problem(request, 400, "bad_request", NULL, "%s", error.msg);
        return;
    }
    http_connection_move(request->connection, NULL);
    route->handle(request, args, request->server->config.userdata);
    if (!request->answered && !request->held)
        http_reply_problem(request, 500, "internal_error", NULL, "nobody answered");
}

/* ---- from head to answer ---- */

struct http_request *http_request_new(struct http_connection *connection,
                                      struct MHD_Connection *mhd, const char *uri)
{
    struct http_request *request = calloc(1, sizeof(*request));
    if (!request)
        return NULL;

    connection->request = request;
    request->server = connection->listener->server;
    request->connection = connection;
    request->mhd = mhd;
    request->started = loop_now_usec();
    request->escaped = memchr(uri, '%', strcspn(uri, "?")) != NULL;
    return request;
}

struct http_request *http_request_free(struct http_request *request)
{
    if (!request)
        return NULL;

    request->connection->request = NULL;
    if (request->held)
        TAILQ_REMOVE(&request->server->held, request, link);
    if (request->response)
        MHD_destroy_response(request->response);
    free(request->body);
    free(request);
    return NULL;
}

/* Suspends the connection until there is an answer, or gives the answer to libmicrohttpd. */
static enum MHD_Result deliver(struct http_request *request)
{
    struct MHD_Response *response = request->response;

    if (!request->answered) {
        request->suspended = true;
        MHD_suspend_connection(request->mhd);
        return MHD_YES;
    }
    if (!response)
        return MHD_NO;

    http_connection_move(request->connection,
                         request->streamed ? NULL : &request->connection->listener->answering);
    request->response = NULL;
    enum MHD_Result r = MHD_queue_response(request->mhd, request->status, response);
    MHD_destroy_response(response);
    return r;
}

static enum MHD_Result begin(struct http_request *request, const char *path, const char *method,
                             const char *version)
{
    request->phase = HTTP_PHASE_BODY;
    if (take_head(request, path, method, version) || request->drain)
        return MHD_YES;
    request->phase = HTTP_PHASE_HANDLED;
    return deliver(request);
}

enum MHD_Result http_request_step(struct http_request *request, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *size)
{
    if (request->phase == HTTP_PHASE_NEW)
        return begin(request, path, method, version);
    if (request->phase == HTTP_PHASE_BODY && *size > 0)
        return take_body(request, data, size);
    if (request->phase == HTTP_PHASE_BODY && !request->answered && request->server->closing)
        http_request_refuse(request, &unavailable, "going away");
    else if (request->phase == HTTP_PHASE_BODY && !request->answered)
        handle(request);
    request->phase = HTTP_PHASE_HANDLED;
    return deliver(request);
}

/* ---- requests that wait ---- */

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata);

static void arm_deadline(struct http_server *server)
{
    const struct http_request *next = TAILQ_FIRST(&server->held);
    uint64_t now = loop_now_usec();

    if (next)
        (void)!loop_timer(server->event, &server->deadline,
                          next->deadline > now ? next->deadline - now : 0, on_deadline, server);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct http_server *server = userdata;
    struct http_request *request;
    uint64_t now = loop_now_usec();

    (void)source, (void)usec;
    while ((request = TAILQ_FIRST(&server->held)) && request->deadline <= now) {
        TAILQ_REMOVE(&server->held, request, link);
        request->held = false;
        if (request->on_deadline)
            request->on_deadline(request, request->userdata);
        if (!request->answered)
            http_reply_problem(request, 503, "deadline", NULL, "not done in time");
    }
    arm_deadline(server);
    return 0;
}

static void insert_held(struct http_requests *held, struct http_request *request)
{
    struct http_request *before = TAILQ_LAST(held, http_requests);

    while (before && before->deadline > request->deadline)
        before = TAILQ_PREV(before, http_requests, link);
    if (before)
        TAILQ_INSERT_AFTER(held, before, request, link);
    else
        TAILQ_INSERT_HEAD(held, request, link);
}

void http_request_hold(struct http_request *request, uint64_t deadline_usec,
                       void (*callback)(struct http_request *request, void *userdata),
                       void *userdata)
{
    struct http_server *server = request->server;

    assert(!request->answered && !request->held);
    if (__builtin_add_overflow(loop_now_usec(), deadline_usec, &request->deadline))
        request->deadline = UINT64_MAX;
    request->on_deadline = callback;
    request->userdata = userdata;
    request->held = true;
    insert_held(&server->held, request);
    if (TAILQ_FIRST(&server->held) == request)
        arm_deadline(server);
}

void http_requests_abandon(struct http_server *server)
{
    struct http_request *request;

    while ((request = TAILQ_FIRST(&server->held)))
        http_request_refuse(request, &unavailable, "going away");
}
