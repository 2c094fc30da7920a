/* Can this node freeze? Asked before the agent says that it is ready, and by `--check`.
 *
 * Each check has a verdict; only SELFTEST_FAIL keeps the agent from working. A warning is something
 * that the agent lives with and says: no swap, no memory controller. */
#pragma once

#include <stdbool.h>

#include <jansson.h>

#include "agent/layout.h"
#include "agent/store.h"

enum selftest_verdict { SELFTEST_OK, SELFTEST_WARN, SELFTEST_FAIL };
extern const char *const selftest_verdict_names[];

#define SELFTEST_CHECKS_MAX 12

struct selftest {
    struct {
        const char *name;
        enum selftest_verdict verdict;
        char detail[ERROR_MSG_SIZE];
    } checks[SELFTEST_CHECKS_MAX];
    unsigned n;
};

struct selftest_subject {
    const struct cgroup_root *root;
    const struct layout *layout;
    struct store *store;
};

/* Freezes and thaws a process of its own in a group of its own, writes a record, looks at swap and
 * reclaim. Takes some milliseconds and blocks: before the loop. */
void selftest_run(struct selftest *ret, const struct selftest_subject *subject);

enum selftest_verdict selftest_worst(const struct selftest *selftest);

/* {"ready": bool, "checks": [{"name", "verdict", "detail"}]} */
json_t *selftest_to_json(const struct selftest *selftest);
