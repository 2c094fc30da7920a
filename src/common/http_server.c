#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/loop.h"
#include "http_internal.h"

/* ---- connections ---- */

static void connection_shut(struct http_connection *connection)
{
    connection->shut = true;
    connection->listener->n_connections--;
    http_connection_move(connection, NULL);
    /* libmicrohttpd owns the socket; it sees the end of file and closes it. */
    shutdown(connection->caller.fd, SHUT_RDWR);
}

static bool is_crowded(const struct http_listener *listener)
{
    unsigned max = listener->server->config.connections_max;
    unsigned newcomers = max < HTTP_NEWCOMERS_MIN ? max : HTTP_NEWCOMERS_MIN;

    return listener->n_connections > max && listener->n_listed > newcomers;
}

/* Whoever comes is let in: what makes room is the oldest connection without a whole request, then
 * the oldest that does not take its answer. What waits for a handler, or streams, stays. */
static void make_room(struct http_listener *listener)
{
    while (is_crowded(listener)) {
        struct http_connection *oldest = TAILQ_FIRST(&listener->receiving);
        if (oldest == TAILQ_LAST(&listener->receiving, http_connections))
            oldest = TAILQ_FIRST(&listener->answering);
        connection_shut(oldest);
    }
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata);

static uint64_t idle_timeout_usec(const struct http_listener *listener)
{
    return listener->server->config.idle_timeout_sec * USEC_PER_SEC;
}

/* One timer, of the oldest; a timer that is armed is left alone, so that a request costs none. */
static void arm_idle(struct http_listener *listener)
{
    const struct http_connection *oldest = TAILQ_FIRST(&listener->receiving);
    if (listener->idle_armed || !oldest)
        return;

    uint64_t age = loop_now_usec() - oldest->since;
    uint64_t timeout = idle_timeout_usec(listener);
    listener->idle_armed = loop_timer(listener->server->event, &listener->idle,
                                      age < timeout ? timeout - age : 0, on_idle, listener) == 0;
}

/* However diligently somebody trickles: from the start of a connection, or from the last answer, to
 * the end of a request no more than this. */
static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct http_listener *listener = userdata;
    struct http_connection *connection;
    uint64_t now = loop_now_usec();

    (void)source, (void)usec;
    while ((connection = TAILQ_FIRST(&listener->receiving)) &&
           now - connection->since >= idle_timeout_usec(listener))
        connection_shut(connection);
    listener->idle_armed = false;
    arm_idle(listener);
    return 0;
}

void http_connection_move(struct http_connection *connection, struct http_connections *list)
{
    struct http_listener *listener = connection->listener;

    if (connection->list) {
        TAILQ_REMOVE(connection->list, connection, link);
        listener->n_listed--;
    }
    connection->list = connection->shut ? NULL : list;
    if (!connection->list)
        return;

    connection->since = loop_now_usec();
    TAILQ_INSERT_TAIL(connection->list, connection, link);
    listener->n_listed++;
    arm_idle(listener);
}

static void identify_tcp(struct http_caller *caller, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    caller->loopback = info && info->client_addr && http_socket_is_loopback(info->client_addr);
    setsockopt(caller->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

static void identify_local(struct http_caller *caller)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(caller->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return;
    caller->local = true;
    caller->uid = peer.uid;
}

static struct http_connection *connection_new(struct http_listener *listener,
                                              struct MHD_Connection *mhd)
{
    struct http_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;

    connection->listener = listener;
    connection->caller.fd =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (listener->path)
        identify_local(&connection->caller);
    else
        identify_tcp(&connection->caller, mhd);

    listener->n_connections++;
    http_connection_move(connection, &listener->receiving);
    make_room(listener);
    return connection;
}

static void connection_free(struct http_connection *connection)
{
    struct http_listener *listener = connection->listener;

    http_request_free(connection->request);
    if (!connection->shut)
        listener->n_connections--;
    http_connection_move(connection, NULL);
    free(connection);
    /* At its limit libmicrohttpd stops to accept, and looks whether it is still there only at the
     * beginning of a round: without one more, who waits in the backlog would wait for an event. */
    http_listener_turn(listener);
}

/* ---- what libmicrohttpd tells ---- */

static void on_connection(void *userdata, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *context = connection_new(userdata, mhd);
    else if (*context)
        connection_free(*context);
}

static void *on_request_line(void *userdata, const char *uri, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_connection *connection = info ? info->socket_context : NULL;

    (void)userdata;
    if (!connection)
        return NULL;
    /* Of a request line that it has no memory for, libmicrohttpd 0.9 does not tell the end. */
    http_request_free(connection->request);
    return http_request_new(connection, mhd, uri);
}

static enum MHD_Result on_access(void *userdata, struct MHD_Connection *mhd, const char *path,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **context)
{
    (void)userdata, (void)mhd;
    /* Without memory for a request there is none for an answer. */
    return *context ? http_request_step(*context, path, method, version, data, size) : MHD_NO;
}

static void on_completed(void *userdata, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode how)
{
    struct http_request *request = *context;

    (void)userdata, (void)mhd, (void)how;
    if (!request)
        return;
    *context = NULL;
    http_connection_move(request->connection, &request->connection->listener->receiving);
    http_request_free(request);
}

/* Kept for the sentence when it does not start; afterwards it only says what callers did wrong. */
__attribute__((format(printf, 2, 0))) static void on_complaint(void *userdata, const char *fmt,
                                                               va_list args)
{
    struct http_listener *listener = userdata;

    vsnprintf(listener->complaint, sizeof(listener->complaint), fmt, args);
    listener->complaint[strcspn(listener->complaint, "\n")] = '\0';
}

/* ---- libmicrohttpd in the loop ---- */

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata);

/* Its timeouts are of connections that do not take their answers: seconds. A timer that fires too
 * early costs a round, one that is moved with every request costs more. */
static void arm_timeout(struct http_listener *listener, uint64_t msec)
{
    uint64_t wait = msec < 3600 * 1000 ? msec * USEC_PER_MSEC : 3600 * USEC_PER_SEC;
    uint64_t at = loop_now_usec() + wait;

    if (listener->timeout_at && listener->timeout_at <= at)
        return;
    if (loop_timer(listener->server->event, &listener->timeout, wait, on_timeout, listener) == 0)
        listener->timeout_at = at;
}

static bool run(struct http_listener *listener, uint64_t *ret_msec)
{
    MHD_UNSIGNED_LONG_LONG msec = 0;

    MHD_run(listener->daemon);
    bool waits = MHD_get_timeout(listener->daemon, &msec) == MHD_YES;
    *ret_msec = msec;
    return waits;
}

/* One round and back to the loop, even if there is more: others have a turn in between. */
static void listener_run(struct http_listener *listener)
{
    uint64_t msec;

    if (!run(listener, &msec))
        return;
    if (msec == 0)
        http_listener_turn(listener);
    else
        arm_timeout(listener, msec);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    (void)source, (void)fd, (void)events;
    listener_run(userdata);
    return 0;
}

static int on_turn(sd_event_source *source, void *userdata)
{
    (void)source;
    listener_run(userdata);
    return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct http_listener *listener = userdata;

    (void)source, (void)usec;
    listener->timeout_at = 0;
    listener_run(listener);
    return 0;
}

void http_listener_turn(struct http_listener *listener)
{
    if (listener->turn)
        sd_event_source_set_enabled(listener->turn, SD_EVENT_ONESHOT);
}

/* ---- listeners ---- */

/* 1.0 knows degrees of strictness, of which 1 refuses bare line feeds, folded headers and blanks in
 * names; 0.9 knows only one thing to be strict about, a missing Host, which we refuse ourselves. */
#if MHD_VERSION >= 0x00097701
#define STRICTNESS MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1
#else
#define STRICTNESS MHD_OPTION_STRICT_FOR_CLIENT, 0
#endif

/* The socket belongs to libmicrohttpd from here on, even when it does not start. */
static int start_daemon(struct http_listener *listener, int fd, struct error *error)
{
    const struct http_config *config = &listener->server->config;

    listener->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access,
        listener, MHD_OPTION_EXTERNAL_LOGGER, on_complaint, listener, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, config->connections_max + HTTP_CONNECTIONS_SPARE,
        MHD_OPTION_CONNECTION_TIMEOUT, config->idle_timeout_sec, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        HTTP_CONNECTION_MEMORY, MHD_OPTION_NOTIFY_CONNECTION, on_connection, listener,
        MHD_OPTION_URI_LOG_CALLBACK, on_request_line, listener, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, listener, STRICTNESS, MHD_OPTION_END);
    if (!listener->daemon)
        return error_set(error, errno, "start libmicrohttpd: %s", listener->complaint);
    return 0;
}

static int watch_daemon(struct http_listener *listener, struct error *error)
{
    sd_event *event = listener->server->event;
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);

    if (!info)
        return error_set(error, ENOTSUP, "libmicrohttpd without epoll");
    int r =
        sd_event_add_io(event, &listener->readable, info->epoll_fd, EPOLLIN, on_readable, listener);
    if (r >= 0)
        r = sd_event_add_defer(event, &listener->turn, on_turn, listener);
    if (r < 0)
        return error_set(error, -r, "watch a listener");
    return 0;
}

/* What was answered just before the end still leaves; who does not take it at once is cut off. */
static void stop_daemon(struct http_listener *listener)
{
    uint64_t msec = 0;
    int fd = MHD_quiesce_daemon(listener->daemon);

    for (int rounds = 0; rounds < 64 && run(listener, &msec) && msec == 0;)
        rounds++;
    MHD_stop_daemon(listener->daemon);
    close_fd(fd);
}

static void remove_socket(const struct http_listener *listener)
{
    struct stat st;

    if (lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
        st.st_ino == listener->inode)
        unlink(listener->path);
}

static struct http_listener *listener_free(struct http_listener *listener)
{
    if (!listener)
        return NULL;

    if (listener->path)
        remove_socket(listener);
    if (listener->daemon)
        stop_daemon(listener);
    sd_event_source_disable_unref(listener->readable);
    sd_event_source_disable_unref(listener->turn);
    sd_event_source_disable_unref(listener->timeout);
    sd_event_source_disable_unref(listener->idle);
    free(listener->path);
    free(listener);
    return NULL;
}

static void listener_free_p(struct http_listener **listener)
{
    *listener = listener_free(*listener);
}

static struct http_listener *listener_new(struct http_server *server)
{
    struct http_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return NULL;

    listener->server = server;
    TAILQ_INIT(&listener->receiving);
    TAILQ_INIT(&listener->answering);
    return listener;
}

static int listener_start(struct http_listener *listener, int fd, struct error *error)
{
    int r = start_daemon(listener, fd, error);
    if (r < 0)
        return r;
    r = watch_daemon(listener, error);
    if (r < 0)
        return r;
    STAILQ_INSERT_TAIL(&listener->server->listeners, listener, link);
    return 0;
}

int http_server_listen_tcp(struct http_server *server, const char *address, struct error *error)
{
    cleanup(listener_free_p) struct http_listener *listener = listener_new(server);
    if (!listener)
        return error_set(error, ENOMEM, "listen on %s", address);

    int fd = http_socket_tcp(address, &listener->port, error);
    if (fd < 0)
        return error_wrap(error, fd, "listen on %s", address);
    int r = listener_start(listener, fd, error);
    if (r < 0)
        return error_wrap(error, r, "listen on %s", address);
    TAKE_PTR(listener);
    return 0;
}

static int listen_unix(struct http_listener *listener, mode_t mode, struct error *error)
{
    struct stat st;

    int fd = http_socket_unix(listener->path, mode, error);
    if (fd < 0)
        return fd;
    if (lstat(listener->path, &st) == 0) {
        listener->device = st.st_dev;
        listener->inode = st.st_ino;
    }
    return listener_start(listener, fd, error);
}

int http_server_listen_unix(struct http_server *server, const char *path, mode_t mode,
                            struct error *error)
{
    cleanup(listener_free_p) struct http_listener *listener = listener_new(server);
    if (!listener || !(listener->path = strdup(path)))
        return error_set(error, ENOMEM, "listen on %s", path);

    int r = listen_unix(listener, mode, error);
    if (r < 0)
        return error_wrap(error, r, "listen on %s", path);
    TAKE_PTR(listener);
    return 0;
}

unsigned http_server_port(const struct http_server *server, unsigned index)
{
    const struct http_listener *listener;

    STAILQ_FOREACH(listener, &server->listeners, link)
    if (!listener->path && index-- == 0)
        return listener->port;
    return 0;
}

/* ---- server ---- */

static int check_config(const struct http_config *config, struct error *error)
{
    if (!config->connections_max || !config->idle_timeout_sec || !config->authorize)
        return error_set(error, EINVAL, "HTTP server without limits or without authorize");
    for (size_t i = 0; i < config->n_routes; i++)
        if (config->routes[i].args_size > HTTP_ARGS_MAX ||
            config->routes[i].n_fields > SCHEMA_FIELDS_MAX)
            return error_set(error, EINVAL, "route %s", config->routes[i].path);
    return 0;
}

int http_server_open(struct http_server **ret, sd_event *event, const struct http_config *config,
                     struct error *error)
{
    int r = check_config(config, error);
    if (r < 0)
        return r;

    struct http_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(error, ENOMEM, "open HTTP server");
    server->config = *config;
    server->event = sd_event_ref(event);
    STAILQ_INIT(&server->listeners);
    TAILQ_INIT(&server->held);
    TAILQ_INIT(&server->streams);

    *ret = server;
    return 0;
}

struct http_server *http_server_close(struct http_server *server)
{
    struct http_listener *listener;

    if (!server)
        return NULL;

    server->closing = true;
    http_requests_abandon(server);
    http_streams_abandon(server);
    while ((listener = STAILQ_FIRST(&server->listeners))) {
        STAILQ_REMOVE_HEAD(&server->listeners, link);
        listener_free(listener);
    }
    sd_event_source_disable_unref(server->deadline);
    sd_event_unref(server->event);
    free(server);
    return NULL;
}
