#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include "agent/api.h"
#include "agent/layout.h"
#include "agent/limits.h"
#include "agent/pressure.h"
#include "agent/privileges.h"
#include "agent/reconcile.h"
#include "agent/selftest.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/settings.h"

/* ---- settings ---- */

struct settings {
    struct setting_list listen;
    const char *socket;
    const char *cgroup_root;
    const char *state_dir;
    const char *token_file;
    bool anonymous_loopback;
    uint64_t freeze_timeout;
    uint64_t reclaim_chunk;
    uint64_t workers;
    struct setting_list ignore_source;
    const char *kubelet_cgroup;
    int trigger;
    int prefetch;
    uint64_t wake_limit;
    int log_level;
    int log_format;
    bool thaw_all;
    bool check;
};

static const char *const level_names[] = { "error", "warning", "info", "debug", NULL };
static const int levels[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
static const char *const trigger_names[] = {
    [WAKER_AUTO] = "auto", [WAKER_BPF] = "bpf", [WAKER_POLL] = "poll", [WAKER_OFF] = "off", NULL
};
static const char *const format_names[] = { [LOG_FORMAT_AUTO] = "auto",
                                            [LOG_FORMAT_JOURNAL] = "journal",
                                            [LOG_FORMAT_JSON] = "json",
                                            [LOG_FORMAT_TEXT] = "text",
                                            NULL };

#define AT(field) .offset = offsetof(struct settings, field)

static const struct setting settings_table[] = {
    { .flag = "listen",
      .metavar = "HOST:PORT",
      .type = SETTING_STRINGS,
      AT(listen),
      .help = "Serve the API on this TCP address, too. Repeatable. Needs --token-file, unless the "
              "address is a loopback one and --allow-anonymous-loopback is given." },
    { .flag = "socket",
      .metavar = "PATH",
      .type = SETTING_STRING,
      AT(socket),
      .fallback = "/run/freeze-agent/agent.sock",
      .help = "Serve the API on this Unix socket. Root and the agent's user may call." },
    { .flag = "cgroup-root",
      .metavar = "DIR",
      .type = SETTING_STRING,
      AT(cgroup_root),
      .help = "Where cgroup v2 is mounted. Unset: /sys/fs/cgroup, or /sys/fs/cgroup/unified on a "
              "hybrid host." },
    { .flag = "state-dir",
      .metavar = "DIR",
      .type = SETTING_STRING,
      AT(state_dir),
      .fallback = "/run/freeze-agent/state",
      .help =
          "Where the records are. They must survive the agent, and need not survive a reboot." },
    { .flag = "token-file",
      .metavar = "FILE",
      .type = SETTING_STRING,
      AT(token_file),
      .help = "Bearer tokens that may call over TCP, one a line. Read anew when it changes." },
    { .flag = "allow-anonymous-loopback",
      .type = SETTING_BOOL,
      AT(anonymous_loopback),
      .help = "On loopback addresses, let everybody read without a token, and processes of root "
              "(or of the agent's user) write." },
    { .flag = "freeze-timeout",
      .metavar = "TIME",
      .type = SETTING_DURATION,
      AT(freeze_timeout),
      .fallback = "2s",
      .min = 10 * USEC_PER_MSEC,
      .max = 60 * USEC_PER_SEC,
      .help = "How long the kernel may take to freeze a pod before all is rolled back." },
    { .flag = "reclaim-chunk",
      .metavar = "SIZE",
      .type = SETTING_SIZE,
      AT(reclaim_chunk),
      .fallback = "16M",
      .min = RECLAIM_CHUNK_MIN,
      .max = (uint64_t)1 << 30,
      .help = "The most that is reclaimed in one go. It gets smaller by itself where that takes "
              "longer than 100 ms." },
    { .flag = "workers",
      .metavar = "N",
      .type = SETTING_UINT,
      AT(workers),
      .fallback = "2",
      .min = 1,
      .max = 64,
      .help = "Threads that reclaim." },
    { .flag = "trigger",
      .metavar = "MEANS",
      .type = SETTING_ENUM,
      AT(trigger),
      .fallback = "auto",
      .names = trigger_names,
      .help = "What tells of packets for frozen pods: bpf, poll (their accept queues, some times a "
              "second), off, or auto: bpf where it can be had, else poll." },
    { .flag = "prefetch",
      .metavar = "MODE",
      .type = SETTING_ENUM,
      AT(prefetch),
      .fallback = "recorded",
      .names = prefetch_mode_names,
      .help = "Bring a pod's pages back while it wakes: all of them; recorded: first those that it "
              "touched at its last wake; or off. Needs to see the host's processes." },
    { .flag = "ignore-source",
      .metavar = "NETWORK",
      .type = SETTING_STRINGS,
      AT(ignore_source),
      .help = "Packets from this address or network wake nobody (192.0.2.7, 10.0.0.0/8, "
              "2001:db8::/32). Repeatable." },
    { .flag = "kubelet-cgroup",
      .metavar = "PATH",
      .type = SETTING_STRING,
      AT(kubelet_cgroup),
      .help = "The kubelet's cgroup, below the cgroup root: connections that it opens are probes, "
              "and wake nobody. Unset: the usual ones are tried." },
    { .flag = "wake-limit",
      .metavar = "N",
      .type = SETTING_UINT,
      AT(wake_limit),
      .fallback = "30",
      .max = 1000000,
      .help = "A pod that packets wake so often within a minute is not frozen again until that is "
              "over. 0: no limit." },
    { .flag = "log-level",
      .metavar = "LEVEL",
      .type = SETTING_ENUM,
      AT(log_level),
      .fallback = "info",
      .names = level_names,
      .help = "The least urgent that is written." },
    { .flag = "log-format",
      .metavar = "FORMAT",
      .type = SETTING_ENUM,
      AT(log_format),
      .fallback = "auto",
      .names = format_names,
      .help = "json is one object a line; auto is whichever fits where the log goes." },
    { .flag = "thaw-all",
      .type = SETTING_BOOL,
      AT(thaw_all),
      .help = "Thaw every pod that has a record, and exit. Also works beside a running agent." },
    { .flag = "check",
      .type = SETTING_BOOL,
      AT(check),
      .help = "Test whether this node can freeze pods, say so, and exit: 0 when it can." },
};

static const struct settings_program program = {
    .name = "freeze-agent",
    .synopsis = "freezes the cgroups of idle pods, swaps them out, and thaws them at once",
    .version = TORPOR_VERSION,
    .env_prefix = "FREEZE_AGENT",
    .table = settings_table,
    .n = ARRAY_SIZE(settings_table),
};

/* ---- the process ---- */

static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            log_warning("raise the limit of open files: %s, ignoring", strerror(errno));
    }
}

/* An agent that was swapped out itself would delay every thaw. Only what is touched is locked: the
 * stacks of the workers are not. */
static void lock_memory(void)
{
    const struct rlimit unlimited = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };

    /* Without the limit raised, what is allocated later could fail to be locked, and so to be had.
     */
    if (setrlimit(RLIMIT_MEMLOCK, &unlimited) < 0)
        log_debug("raise the limit of locked memory: %s, ignoring", strerror(errno));
    else if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
        log_debug("lock the agent's memory: %s, ignoring", strerror(errno));
}

/* Everything that the agent is made of, in the order in which it is opened. */
struct agent {
    struct settings settings;
    sd_event *event;
    struct cgroup_root *root;
    struct layout *layout;
    struct store *store;
    struct events *events;
    struct metrics *metrics;
    struct worker_pool *disk;
    struct worker_pool *reclaimers;
    struct worker_pool *lookers;
    struct worker_pool *fetchers;
    struct prefetcher *prefetcher;
    struct pressure *pressure;
    struct freezer *freezer;
    struct auth *auth;
    struct selftest selftest;
    struct waker_config waker;
    struct api *api;
};

static int open_cgroup_root(struct agent *agent, struct error *error)
{
    static const char hybrid[] = "/sys/fs/cgroup/unified";
    const char *path = agent->settings.cgroup_root;

    if (path)
        return cgroup_root_open(&agent->root, path, 0, error);
    int r = cgroup_root_open(&agent->root, "/sys/fs/cgroup", 0, error);
    if (r == -EINVAL && cgroup_root_open(&agent->root, hybrid, 0, NULL) == 0)
        return 0;
    return r;
}

static int open_node(struct agent *agent, int store_flags, struct error *error)
{
    int r = open_cgroup_root(agent, error);

    if (r == 0)
        r = layout_open(&agent->layout, agent->root, error);
    if (r == 0)
        r = store_open(&agent->store, agent->settings.state_dir, store_flags, error);
    return r;
}

static int open_pools(struct agent *agent, struct error *error)
{
    struct worker_config disk = { .name = "disk", .threads = 1 };
    struct worker_config reclaimers = { .name = "reclaim",
                                        .threads = (unsigned)agent->settings.workers,
                                        .nice = 10 };
    struct worker_config lookers = { .name = "look", .threads = 1, .nice = 5 };
    /* The app that wakes goes first: what it touches it gets, and the rest comes while it waits. */
    struct worker_config fetchers = { .name = "prefetch", .threads = 1, .nice = 10 };
    int r = worker_pool_open(&agent->disk, agent->event, &disk, error);

    if (r == 0)
        r = worker_pool_open(&agent->reclaimers, agent->event, &reclaimers, error);
    if (r == 0)
        r = worker_pool_open(&agent->lookers, agent->event, &lookers, error);
    if (r == 0)
        r = worker_pool_open(&agent->fetchers, agent->event, &fetchers, error);
    return r;
}

static void on_prefetched(const char *pod_uid, const struct prefetch_result *result, void *userdata)
{
    struct metrics *metrics = userdata;
    uint64_t bytes = result->swapped_in + result->file_read;

    metrics_add(metrics, STAT_PREFETCHED_BYTES, 0, (double)bytes);
    metrics_observe(metrics, STAT_PREFETCH_SECONDS, 0, (double)result->usec / USEC_PER_SEC);
    if (result->end == PAGEIN_FAILED)
        log_warning_with(FIELDS({ "POD", pod_uid }, { "OP", "prefetch" }), "%s, ignoring",
                         result->error.msg);
    log_debug_with(FIELDS({ "POD", pod_uid }, { "OP", "prefetch" }),
                   "prefetched %.1f MiB in %.0f ms: %s", (double)bytes / (1 << 20),
                   (double)result->usec / USEC_PER_MSEC, pagein_end_names[result->end]);
}

/* Without it pages come back as they are touched. */
static int open_prefetcher(struct agent *agent, struct error *error)
{
    struct prefetcher_config config = { .event = agent->event,
                                        .pool = agent->fetchers,
                                        .mode = (enum prefetch_mode)agent->settings.prefetch,
                                        .done = on_prefetched,
                                        .userdata = agent->metrics };
    struct error why = ERROR_INIT;

    if (config.mode == PREFETCH_OFF || !cgroup_root_has_memory(agent->root))
        return 0;
    int r = prefetch_probe(&why);
    if (r != 0) {
        log_info("no prefetch: %s", why.msg);
        return 0;
    }
    return prefetcher_open(&agent->prefetcher, &config, error);
}

static int read_waker_settings(struct agent *agent, struct error *error)
{
    struct waker_config *waker = &agent->waker;

    waker->wanted = agent->settings.trigger;
    waker->kubelet_cgroup = agent->settings.kubelet_cgroup;
    for (unsigned i = 0; i < agent->settings.ignore_source.n; i++) {
        int r = trigger_parse_source(agent->settings.ignore_source.items[i],
                                     &waker->ignored[waker->n_ignored++], error);
        if (r < 0)
            return error_wrap(error, r, "--ignore-source");
    }
    return 0;
}

static int open_freezer(struct agent *agent, struct error *error)
{
    struct freezer_config config = { .event = agent->event,
                                     .root = agent->root,
                                     .layout = agent->layout,
                                     .store = agent->store,
                                     .disk = agent->disk,
                                     .reclaimers = agent->reclaimers,
                                     .lookers = agent->lookers,
                                     .events = agent->events,
                                     .metrics = agent->metrics,
                                     .prefetcher = agent->prefetcher,
                                     .waker = &agent->waker,
                                     .wakes_max = (unsigned)agent->settings.wake_limit,
                                     .freeze_timeout_usec = agent->settings.freeze_timeout,
                                     .reclaim_chunk = agent->settings.reclaim_chunk };

    return freezer_open(&agent->freezer, &config, error);
}

static int open_engine(struct agent *agent, struct error *error)
{
    int r = events_open(&agent->events, EVENTS_MAX, error);
    if (r == 0)
        r = metrics_open(&agent->metrics, stats_families, STATS_N, error);
    if (r == 0)
        r = open_pools(agent, error);
    if (r == 0)
        r = open_prefetcher(agent, error);
    if (r == 0)
        r = open_freezer(agent, error);
    if (r == 0)
        metrics_set(agent->metrics, STAT_BUILD_INFO, 0, 1);
    return r;
}

/* What has ended on one may go on to another. */
static void stop_pools(struct agent *agent)
{
    worker_pool_stop(agent->disk);
    worker_pool_stop(agent->reclaimers);
    worker_pool_stop(agent->lookers);
    worker_pool_stop(agent->fetchers);
}

static void close_agent(struct agent *agent)
{
    agent->api = api_close(agent->api);
    agent->auth = auth_close(agent->auth);
    stop_pools(agent);
    agent->prefetcher = prefetcher_close(agent->prefetcher);
    agent->freezer = freezer_close(agent->freezer);
    agent->disk = worker_pool_close(agent->disk);
    agent->reclaimers = worker_pool_close(agent->reclaimers);
    agent->lookers = worker_pool_close(agent->lookers);
    agent->fetchers = worker_pool_close(agent->fetchers);
    agent->metrics = metrics_close(agent->metrics);
    agent->events = events_close(agent->events);
    agent->pressure = pressure_close(agent->pressure);
    agent->event = loop_close(agent->event);
    agent->store = store_close(agent->store);
    agent->layout = layout_close(agent->layout);
    agent->root = cgroup_root_close(agent->root);
    settings_free(&program, &agent->settings);
}

/* ---- --thaw-all, --check ---- */

static int thaw_all(struct agent *agent, struct error *error)
{
    unsigned thawed = 0, failed = 0;
    int r = open_node(agent, STORE_SHARED, error);

    if (r == 0)
        r = reconcile_thaw_all(agent->root, agent->layout, agent->store, &thawed, &failed, error);
    if (r < 0)
        return r;
    log_info("thawed %u pods, %u failed", thawed, failed);
    return failed ? error_set(error, 0, "%u pods could not be thawed", failed) : 0;
}

static void run_selftest(struct agent *agent)
{
    struct selftest_subject subject = { .root = agent->root,
                                        .layout = agent->layout,
                                        .store = agent->store };

    selftest_run(&agent->selftest, &subject);
}

static int check(struct agent *agent, struct error *error)
{
    int r = open_node(agent, STORE_SHARED, error);

    if (r < 0)
        return r;
    run_selftest(agent);
    for (unsigned i = 0; i < agent->selftest.n; i++)
        printf("%-8s %-8s %s\n", agent->selftest.checks[i].name,
               selftest_verdict_names[agent->selftest.checks[i].verdict],
               agent->selftest.checks[i].detail);
    if (selftest_worst(&agent->selftest) == SELFTEST_FAIL)
        return error_set(error, 0, "this node cannot freeze pods");
    return 0;
}

/* ---- the daemon ---- */

static void log_selftest(const struct selftest *selftest)
{
    static const int priorities[] = {
        [SELFTEST_OK] = LOG_DEBUG, [SELFTEST_WARN] = LOG_WARNING, [SELFTEST_FAIL] = LOG_ERR
    };

    for (unsigned i = 0; i < selftest->n; i++)
        log_write(priorities[selftest->checks[i].verdict],
                  FIELDS({ "CHECK", selftest->checks[i].name }), "%s: %s", selftest->checks[i].name,
                  selftest->checks[i].detail);
}

static int take_over(struct agent *agent, struct error *error)
{
    struct reconcile_counts counts = { 0 };
    int r = reconcile(agent->freezer, &counts, error);

    if (r < 0)
        return r;
    log_info("records: %u adopted, %u rolled back, %u dropped, %u not understood, %u not read",
             counts.n[RECONCILE_ADOPTED], counts.n[RECONCILE_ROLLED_BACK],
             counts.n[RECONCILE_OTHER_BOOT] + counts.n[RECONCILE_GONE],
             counts.n[RECONCILE_CORRUPT] + counts.n[RECONCILE_OTHER_VERSION],
             counts.n[RECONCILE_FAILED]);
    return 0;
}

/* Nothing listens without authentication. */
static int check_listeners(const struct settings *settings, struct error *error)
{
    for (unsigned i = 0; i < settings->listen.n; i++) {
        const char *address = settings->listen.items[i];
        bool loopback = http_address_is_loopback(address);
        if (settings->token_file || (loopback && settings->anonymous_loopback))
            continue;
        return error_set(error, EINVAL, "--listen %s needs --token-file%s", address,
                         loopback ? " or --allow-anonymous-loopback" : "");
    }
    if (settings->anonymous_loopback)
        for (unsigned i = 0; i < settings->listen.n; i++)
            if (!http_address_is_loopback(settings->listen.items[i]))
                return error_set(error, EINVAL,
                                 "--allow-anonymous-loopback goes with loopback addresses only, "
                                 "not with --listen %s",
                                 settings->listen.items[i]);
    return 0;
}

static int open_api(struct agent *agent, struct error *error)
{
    const struct settings *settings = &agent->settings;
    struct api_config config = { .event = agent->event,
                                 .freezer = agent->freezer,
                                 .selftest = &agent->selftest };

    int r = auth_open(&agent->auth, settings->token_file, settings->anonymous_loopback, error);
    if (r < 0)
        return r;
    config.auth = agent->auth;
    r = api_open(&agent->api, &config, error);
    if (r == 0 && *settings->socket)
        r = http_server_listen_unix(api_server(agent->api), settings->socket, 0600, error);
    for (unsigned i = 0; r == 0 && i < settings->listen.n; i++)
        r = http_server_listen_tcp(api_server(agent->api), settings->listen.items[i], error);
    return r;
}

static void on_pressure(void *userdata)
{
    struct agent *agent = userdata;

    if (agent->freezer)
        freezer_pressure(agent->freezer);
}

/* Before the privileges are dropped: kernels before 6.5 want CAP_SYS_RESOURCE for this. */
static int open_loop(struct agent *agent, struct error *error)
{
    struct error why = ERROR_INIT;
    int r = loop_open(&agent->event, error);

    if (r == 0 && pressure_open(&agent->pressure, agent->event, on_pressure, agent, &why) < 0)
        log_info("%s: reclaim that was put off is not done earlier under pressure", why.msg);
    return r;
}

static int drop_privileges(const struct agent *agent, struct error *error)
{
    unsigned uses = 0;

    if (agent->settings.trigger != WAKER_OFF)
        uses |= PRIVILEGES_TRIGGER;
    if (agent->settings.prefetch != PREFETCH_OFF)
        uses |= PRIVILEGES_PREFETCH;
    return privileges_drop(uses, error);
}

static int serve(struct agent *agent, struct error *error)
{
    int r = check_listeners(&agent->settings, error);

    if (r == 0)
        r = read_waker_settings(agent, error);
    if (r < 0)
        return r;
    raise_fd_limit();
    lock_memory();
    r = open_node(agent, 0, error);
    if (r < 0)
        return r;
    run_selftest(agent); /* may need more than the agent keeps */
    r = open_loop(agent, error);
    if (r == 0)
        r = drop_privileges(agent, error);
    if (r == 0)
        r = open_engine(agent, error);
    if (r == 0)
        r = take_over(agent, error);
    if (r < 0)
        return r;
    log_selftest(&agent->selftest);
    r = open_api(agent, error);
    if (r < 0)
        return r;
    log_info("freeze-agent %s is ready", TORPOR_VERSION);
    sd_notify(0, "READY=1");
    r = sd_event_loop(agent->event);
    sd_notify(0, "STOPPING=1");
    return r < 0 ? error_set(error, -r, "event loop") : 0;
}

int main(int argc, char **argv)
{
    struct agent agent = { 0 };
    struct error error = ERROR_INIT;
    int r = settings_parse(&program, argc, argv, &agent.settings, &error);

    if (r > 0)
        return EXIT_SUCCESS;
    if (r < 0) {
        fprintf(stderr, "freeze-agent: %s\n", error.msg);
        return 2;
    }
    log_open(program.name, levels[agent.settings.log_level],
             (enum log_format)agent.settings.log_format);
    r = agent.settings.check      ? check(&agent, &error)
        : agent.settings.thaw_all ? thaw_all(&agent, &error)
                                  : serve(&agent, &error);
    if (r < 0)
        log_error("%s", error.msg);
    close_agent(&agent);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
