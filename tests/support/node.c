#include "node.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/limits.h"
#include "common/log.h"
#include "common/loop.h"

#define PATIENCE_SEC 60
#define N_BUFFERS    64

static void must(bool holds, const char *what, const struct error *error)
{
    if (holds)
        return;
    fprintf(stderr, "node: %s: %s\n", what, error ? error->msg : strerror(errno));
    abort();
}

/* ---- the agent ---- */

static void start_tree(struct node *node)
{
    struct error e = ERROR_INIT;

    must(cgroup_root_open(&node->root, node->tree, CGROUP_ROOT_ANY_FS, &e) == 0, "root", &e);
    must(layout_open(&node->layout, node->root, &e) == 0, "layout", &e);
    must(store_open(&node->store, node->state, 0, &e) == 0, "store", &e);
}

static void start_engine(struct node *node)
{
    struct worker_config disk = { .name = "disk", .threads = 1 };
    struct worker_config reclaimers = { .name = "reclaim", .threads = node->options.reclaimers };
    struct worker_config lookers = { .name = "look", .threads = 1 };
    struct error e = ERROR_INIT;

    must(loop_open(&node->event, &e) == 0, "loop", &e);
    must(events_open(&node->events, EVENTS_MAX, &e) == 0, "events", &e);
    must(metrics_open(&node->metrics, stats_families, STATS_N, &e) == 0, "metrics", &e);
    must(worker_pool_open(&node->disk, node->event, &disk, &e) == 0, "disk", &e);
    must(worker_pool_open(&node->reclaimers, node->event, &reclaimers, &e) == 0, "workers", &e);
    must(worker_pool_open(&node->lookers, node->event, &lookers, &e) == 0, "lookers", &e);
}

static void start_freezer(struct node *node)
{
    struct error e = ERROR_INIT;
    struct freezer_config config = {
        .event = node->event,
        .root = node->root,
        .layout = node->layout,
        .store = node->store,
        .disk = node->disk,
        .reclaimers = node->reclaimers,
        .lookers = node->lookers,
        .waker = node->options.waker,
        .wakes_max = node->options.wakes_max,
        .events = node->events,
        .metrics = node->metrics,
        .freeze_timeout_usec = node->options.freeze_timeout_usec,
        .reclaim_chunk = node->options.reclaim_chunk,
    };

    must(freezer_open(&node->freezer, &config, &e) == 0, "freezer", &e);
    must(reconcile(node->freezer, &node->counts, &e) == 0, "reconcile", &e);
}

static void start_api(struct node *node)
{
    struct error e = ERROR_INIT;
    struct api_config config = { .event = node->event,
                                 .freezer = node->freezer,
                                 .selftest = &node->selftest };

    must(auth_open(&node->auth, NULL, false, &e) == 0, "auth", &e);
    config.auth = node->auth;
    must(api_open(&node->api, &config, &e) == 0, "api", &e);
    must(http_server_listen_unix(api_server(node->api), node->socket, 0600, &e) == 0, "listen", &e);
}

void node_start(struct node *node)
{
    start_tree(node);
    start_engine(node);
    start_freezer(node);
    start_api(node);
}

void node_stop(struct node *node)
{
    node->api = api_close(node->api);
    node->auth = auth_close(node->auth);
    worker_pool_stop(node->disk);
    worker_pool_stop(node->reclaimers);
    worker_pool_stop(node->lookers);
    node->freezer = freezer_close(node->freezer);
    node->disk = worker_pool_close(node->disk);
    node->reclaimers = worker_pool_close(node->reclaimers);
    node->lookers = worker_pool_close(node->lookers);
    node->metrics = metrics_close(node->metrics);
    node->events = events_close(node->events);
    node->event = loop_close(node->event);
    node->store = store_close(node->store);
    node->layout = layout_close(node->layout);
    node->root = cgroup_root_close(node->root);
}

struct node *node_open(const struct node_options *options)
{
    struct node *node = calloc(1, sizeof *node);

    must(node, "memory", NULL);
    alarm(PATIENCE_SEC);
    log_open("test", LOG_EMERG, LOG_FORMAT_TEXT);
    if (options)
        node->options = *options;
    if (!node->options.freeze_timeout_usec)
        node->options.freeze_timeout_usec = PATIENCE_SEC * USEC_PER_SEC;
    if (!node->options.reclaim_chunk)
        node->options.reclaim_chunk = (uint64_t)16 << 20;
    if (!node->options.reclaimers)
        node->options.reclaimers = 2;
    strcpy(node->dir, "/tmp/torpor-node-XXXXXX");
    must(mkdtemp(node->dir), "temporary directory", NULL);
    snprintf(node->tree, sizeof node->tree, "%s/cgroup", node->dir);
    snprintf(node->state, sizeof node->state, "%s/state", node->dir);
    snprintf(node->socket, sizeof node->socket, "%s/socket", node->dir);
    must(mkdir(node->tree, 0755) == 0, node->tree, NULL);
    fake_start(node->tree, !node->options.no_memory);
    fake_group("kubepods", "max", 0);
    if (!node->options.no_agent)
        node_start(node);
    return node;
}

static void remove_state(const struct node *node)
{
    DIR *dir = opendir(node->state);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_type != DT_DIR)
            must(unlinkat(dirfd(dir), entry->d_name, 0) == 0, entry->d_name, NULL);
    if (dir)
        closedir(dir);
    rmdir(node->state);
}

struct node *node_close(struct node *node)
{
    gate_open(&fake_disk_gate);
    gate_open(&fake_reclaim_gate);
    node_stop(node);
    fake_stop();
    remove_state(node);
    must(rmdir(node->dir) == 0, node->dir, NULL);
    free(node);
    alarm(0);
    return NULL;
}

struct http_client *node_client(struct node *node)
{
    return http_client_unix(node->event, node->socket);
}

/* ---- pods ---- */

const char *keep(const char *fmt, ...)
{
    static char texts[N_BUFFERS][256];
    static unsigned next;
    char text[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return strcpy(texts[next++ % N_BUFFERS], text);
}

const char *nth_uid(unsigned i)
{
    return keep("5b0c9a7e-12f4-4c1d-9e3b-%012x", i);
}

const char *pod_path(unsigned i)
{
    return keep("kubepods/burstable/pod%s", nth_uid(i));
}

const char *container_id(unsigned k)
{
    return keep("%064x", 0xc0 + k);
}

const char *container_path(unsigned i, unsigned k)
{
    return keep("%s/%s", pod_path(i), container_id(k));
}

void pod_make(unsigned i, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        fake_group(container_path(i, k), "0", POD_MEMORY);
}

bool is_asked_to_freeze(unsigned i, unsigned k)
{
    return strcmp(fake_read(container_path(i, k), "cgroup.freeze"), "1\n") == 0;
}

pid_t process_start(const char *name)
{
    int ready[2];
    char byte;

    must(pipe2(ready, O_CLOEXEC) == 0, "pipe", NULL);
    pid_t pid = fork();
    must(pid >= 0, "fork", NULL);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, name);
        close(ready[0]);
        close(ready[1]);
        for (;;)
            pause();
    }
    close(ready[1]);
    must(read(ready[0], &byte, 1) == 0, name, NULL); /* it has closed its end: it has its name */
    close(ready[0]);
    return pid;
}

void process_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- asking ---- */

static void on_done(struct freezer_waiter *waiter, int r, bool already, const struct pod *pod,
                    const struct error *error)
{
    struct asked *asked = container_of(waiter, struct asked, waiter);

    asked->answers++;
    asked->r = r;
    asked->already = already;
    asked->known = pod != NULL;
    if (pod) {
        asked->state = pod->state;
        asked->reclaim = pod->reclaim_state;
        snprintf(asked->reclaim_reason, sizeof asked->reclaim_reason, "%s",
                 pod->reclaim_reason ? pod->reclaim_reason : "");
    }
    if (r != 0)
        snprintf(asked->sentence, sizeof asked->sentence, "%s", error->msg);
}

static void ask_for(struct node *node, unsigned i, struct freeze_request *request,
                    struct asked *asked)
{
    *asked = (struct asked){ .waiter.done = on_done };
    strcpy(request->pod_uid, nth_uid(i));
    freezer_freeze(node->freezer, request, &asked->waiter);
}

void ask_freeze_with(struct node *node, unsigned i, enum reclaim_mode reclaim, uint64_t generation,
                     struct asked *asked)
{
    struct freeze_request request = { .reclaim = reclaim, .generation = generation };

    ask_for(node, i, &request, asked);
}

void ask_freeze(struct node *node, unsigned i, struct asked *asked)
{
    ask_freeze_with(node, i, RECLAIM_OFF, 0, asked);
}

void ask_freeze_in_group(struct node *node, unsigned i, const char *group, struct asked *asked)
{
    struct freeze_request request = { .reclaim = RECLAIM_OFF };

    strcpy(request.group, group);
    ask_for(node, i, &request, asked);
}

void ask_thaw(struct node *node, unsigned i, struct asked *asked)
{
    *asked = (struct asked){ .waiter.done = on_done };
    freezer_thaw(node->freezer, nth_uid(i), 0, &asked->waiter);
}

int await_answer(struct node *node, struct asked *asked)
{
    AWAIT(node, asked->answers > 0);
    return asked->r;
}

int freeze(struct node *node, unsigned i)
{
    struct asked asked;

    ask_freeze(node, i, &asked);
    return await_answer(node, &asked);
}

int thaw(struct node *node, unsigned i)
{
    struct asked asked;

    ask_thaw(node, i, &asked);
    return await_answer(node, &asked);
}

struct pod *find_pod(struct node *node, unsigned i)
{
    return freezer_find(node->freezer, nth_uid(i));
}

bool has_record(struct node *node, unsigned i)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s.json", node->state, nth_uid(i));
    return access(path, F_OK) == 0;
}

unsigned count_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n < 2 ? 0 : n - 2;
}

double stat_of(struct node *node, enum agent_stat stat, unsigned series)
{
    return metrics_get(node->metrics, stat, series);
}

unsigned count_events(struct node *node, const char *part)
{
    const char *line;
    uint64_t seq = 0, missed;
    unsigned n = 0;

    while (events_next(node->events, seq, &line, &seq, &missed))
        n += strstr(line, part) != NULL;
    return n;
}
