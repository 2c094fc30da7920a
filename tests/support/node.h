/* A node with an agent on it, in a temporary directory: a fake cgroup tree (fake_kernel.h), a state
 * directory, and the agent's modules in a loop that the test turns. The agent can be stopped and
 * started again on the same tree. Whatever fails here ends the program; so does a test that lasts
 * longer than a minute. */
#pragma once

#include "agent/api.h"
#include "agent/reconcile.h"
#include "fake_kernel.h"
#include "http_client.h"

struct node_options {
    uint64_t freeze_timeout_usec;     /* 0: far away */
    uint64_t reclaim_chunk;           /* 0: 16 MiB */
    unsigned reclaimers;              /* 0: 2 */
    unsigned wakes_max;               /* 0: no limit */
    const struct waker_config *waker; /* NULL: nothing wakes but calls */
    bool no_memory;
    bool no_agent; /* not started yet */
};

struct node {
    struct node_options options;
    char dir[64], tree[96], state[96], socket[96];

    sd_event *event;
    struct cgroup_root *root;
    struct layout *layout;
    struct store *store;
    struct events *events;
    struct metrics *metrics;
    struct worker_pool *disk, *reclaimers, *lookers;
    struct freezer *freezer;
    struct auth *auth;
    struct selftest selftest;
    struct api *api;
    struct reconcile_counts counts; /* of the last start */
};

/* options may be NULL. */
struct node *node_open(const struct node_options *options);
struct node *node_close(struct node *node);

/* In the order of the program. Stopping thaws nothing. */
void node_start(struct node *node);
void node_stop(struct node *node);

/* A Unix socket in front of it. */
struct http_client *node_client(struct node *node);

/* Turns the loop until the fact holds. */
#define AWAIT(node, fact)                                                                          \
    while (!(fact))                                                                                \
    http_turn((node)->event)

/* ---- pods ---- */

/* Text in a buffer that is good for the next sixty-four calls. */
const char *keep(const char *fmt, ...) PRINTF(1, 2);

/* UID of the i-th pod, id and path of the k-th container in it, kept likewise. Pods are burstable
 * ones of the cgroupfs driver. */
const char *nth_uid(unsigned i);
const char *pod_path(unsigned i);
const char *container_id(unsigned k);
const char *container_path(unsigned i, unsigned k);

#define POD_MEMORY ((uint64_t)64 << 20) /* of each container */

/* A pod of n containers that may not swap. */
void pod_make(unsigned i, unsigned n);

/* Is cgroup.freeze of the k-th container 1? */
bool is_asked_to_freeze(unsigned i, unsigned k);

/* A process of that name, which does nothing. */
pid_t process_start(const char *name);
void process_end(pid_t pid);

/* ---- asking the freezer ---- */

/* What was answered. */
struct asked {
    struct freezer_waiter waiter;
    unsigned answers;
    int r;
    bool already;
    bool known; /* it was in the table; then: */
    enum pod_state state;
    enum reclaim_state reclaim;
    char reclaim_reason[32];
    char sentence[ERROR_MSG_SIZE];
};

/* Reclaim is off. */
void ask_freeze(struct node *node, unsigned i, struct asked *asked);
void ask_freeze_with(struct node *node, unsigned i, enum reclaim_mode reclaim, uint64_t generation,
                     struct asked *asked);
void ask_freeze_in_group(struct node *node, unsigned i, const char *group, struct asked *asked);
void ask_thaw(struct node *node, unsigned i, struct asked *asked);

/* Turns the loop until there is an answer, and returns its r. */
int await_answer(struct node *node, struct asked *asked);

/* The same in one. */
int freeze(struct node *node, unsigned i);
int thaw(struct node *node, unsigned i);

struct pod *find_pod(struct node *node, unsigned i);
bool has_record(struct node *node, unsigned i);
unsigned count_entries(const char *dir); /* without . and .. */
double stat_of(struct node *node, enum agent_stat stat, unsigned series);
/* How many events hold this text? */
unsigned count_events(struct node *node, const char *part);
