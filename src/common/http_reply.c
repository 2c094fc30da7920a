#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "common/loop.h"
#include "http_internal.h"

/* ---- answers ---- */

void http_request_answer(struct http_request *request, unsigned status,
                         struct MHD_Response *response)
{
    struct http_server *server = request->server;
    const struct http_config *config = &server->config;

    assert(!request->answered);
    request->answered = true;
    request->status = status;
    request->response = response;

    if (request->held)
        TAILQ_REMOVE(&server->held, request, link);
    request->held = false;
    if (config->on_answered)
        config->on_answered(request->route ? request->route->path : NULL, status,
                            loop_now_usec() - request->started, config->userdata);

    if (!request->suspended)
        return; /* the call that we are in delivers it */
    request->suspended = false;
    MHD_resume_connection(request->mhd);
    http_listener_turn(request->connection->listener);
}

static struct MHD_Response *text_response(const char *content_type, char *text, size_t len)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);

    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    else
        free(text);
    return response;
}

static struct MHD_Response *json_response(const char *content_type, json_t *body)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

    json_decref(body);
    return text ? text_response(content_type, text, strlen(text)) : NULL;
}

static json_t *problem(unsigned status, const char *code, json_t *members, const char *detail)
{
    /* A detail that is no UTF-8 is left out (the '*'), not the whole answer. */
    json_t *json = json_pack("{s:s, s:s, s:i, s:s, s:o*}", "type", "about:blank", "title",
                             MHD_get_reason_phrase_for(status), "status", (int)status, "code", code,
                             "detail", json_string(detail));

    if (json && members)
        json_object_update_missing(json, members);
    json_decref(members);
    return json;
}

__attribute__((format(printf, 4, 0))) static struct MHD_Response *
problem_response(unsigned status, const char *code, json_t *members, const char *fmt, va_list args)
{
    char detail[2 * ERROR_MSG_SIZE];

    vsnprintf(detail, sizeof(detail), fmt, args);
    return json_response("application/problem+json", problem(status, code, members, detail));
}

void http_reply_json(struct http_request *request, unsigned status, json_t *body)
{
    http_request_answer(request, status, json_response("application/json", body));
}

void http_reply_problem(struct http_request *request, unsigned status, const char *code,
                        json_t *members, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    struct MHD_Response *response = problem_response(status, code, members, fmt, args);
    va_end(args);
    http_request_answer(request, status, response);
}

void http_reply_text(struct http_request *request, unsigned status, const char *content_type,
                     char *text, size_t len)
{
    http_request_answer(request, status, text_response(content_type, text, len));
}

bool http_request_refuse(struct http_request *request, const struct http_refusal *refusal,
                         const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    struct MHD_Response *response =
        problem_response(refusal->status, refusal->code, NULL, fmt, args);
    va_end(args);

    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (response && refusal->header)
        MHD_add_response_header(response, refusal->header, refusal->value);
    http_request_answer(request, refusal->status, response);
    return false;
}

/* ---- streams ---- */

/* What libmicrohttpd allocates for a reader that knows no chunks (HTTP/1.0). */
#define BLOCK_SIZE ((size_t)8 * 1024)

struct http_stream {
    TAILQ_ENTRY(http_stream) link;
    struct http_request *request;
    struct http_server *server;
    const struct http_stream_ops *ops;
    void *data;
    bool waiting; /* and so suspended */
};

static ssize_t on_read(void *userdata, uint64_t position, char *buffer, size_t size)
{
    struct http_stream *stream = userdata;

    (void)position;
    /* Not the end of the stream: the reader is to know that there would have been more. */
    if (stream->server->closing)
        return MHD_CONTENT_READER_END_WITH_ERROR;

    ssize_t n = stream->ops->next(stream->data, buffer, size);
    if (n == HTTP_STREAM_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == HTTP_STREAM_WAIT) {
        /* This callback is one of the two places where this is allowed; 0 alone would make
         * libmicrohttpd ask again and again. */
        stream->waiting = true;
        MHD_suspend_connection(stream->request->mhd);
    }
    return n;
}

/* The response's last reference is gone: read to its end, or cut off, or never begun. */
static void on_free(void *userdata)
{
    struct http_stream *stream = userdata;

    TAILQ_REMOVE(&stream->server->streams, stream, link);
    stream->server->n_streams--;
    stream->ops->close(stream->data);
    free(stream);
}

static struct MHD_Response *stream_response(struct http_stream *stream, const char *content_type)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_SIZE, on_read, stream, on_free);

    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    return response;
}

static void stream_new(struct http_request *request, const struct http_stream_ops *ops, void *data,
                       struct http_stream *stream)
{
    *stream = (struct http_stream){
        .request = request,
        .server = request->server,
        .ops = ops,
        .data = data,
    };
    TAILQ_INSERT_TAIL(&request->server->streams, stream, link);
    request->server->n_streams++;
}

void http_reply_stream(struct http_request *request, const char *content_type,
                       const struct http_stream_ops *ops, void *stream_data,
                       struct http_stream **ret)
{
    struct http_server *server = request->server;

    if (ret)
        *ret = NULL;
    /* To HEAD libmicrohttpd 0.9 would answer with the last chunk of a body that must not be. */
    if (request->is_head) {
        ops->close(stream_data);
        http_reply_text(request, 200, content_type, NULL, 0);
        return;
    }
    if (server->n_streams >= server->config.streams_max) {
        ops->close(stream_data);
        http_reply_problem(request, 503, "too_many_streams", NULL, "%u streams are open",
                           server->n_streams);
        return;
    }

    struct http_stream *stream = malloc(sizeof(*stream));
    if (!stream) {
        ops->close(stream_data);
        http_request_answer(request, 503, NULL);
        return;
    }
    stream_new(request, ops, stream_data, stream);

    struct MHD_Response *response = stream_response(stream, content_type);
    if (!response) {
        on_free(stream);
        http_request_answer(request, 503, NULL);
        return;
    }
    request->streamed = true;
    if (ret)
        *ret = stream;
    http_request_answer(request, 200, response);
}

void http_stream_wake(struct http_stream *stream)
{
    if (!stream->waiting)
        return;
    stream->waiting = false;
    MHD_resume_connection(stream->request->mhd);
    http_listener_turn(stream->request->connection->listener);
}

void http_streams_abandon(struct http_server *server)
{
    struct http_stream *stream;

    TAILQ_FOREACH(stream, &server->streams, link)
    http_stream_wake(stream);
}
