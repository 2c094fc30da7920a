/* What became of the records of an earlier run, at the start (invariant 7).
 *
 *   adopted      every container is there and cgroup.freeze is 1: it stays frozen
 *   rolled back  a part of it is not: thawed, originals back, record removed
 *   dropped      another boot, or no container of it is left: record removed
 *   set aside    the record cannot be understood: what is frozen in that pod is thawed, since
 *                nobody else would, and the file is kept under another name */
#pragma once

#include "agent/freezer.h"

enum reconcile_result {
    RECONCILE_ADOPTED,
    RECONCILE_ROLLED_BACK,
    RECONCILE_OTHER_BOOT,
    RECONCILE_GONE,
    RECONCILE_CORRUPT,
    RECONCILE_OTHER_VERSION,
    RECONCILE_FAILED, /* could not be read; left as it is */
    RECONCILE_RESULTS_N,
};
extern const char *const reconcile_result_names[];

struct reconcile_counts {
    unsigned n[RECONCILE_RESULTS_N];
};

/* Goes through every record. Called before requests are served. One bad record never keeps the
 * others from being looked at. */
int reconcile(struct freezer *freezer, struct reconcile_counts *ret,
              struct error *error) MUST_CHECK;

/* Thaws every pod that has a record, restores what it says, and removes it. Needs no loop. What
 * fails is logged and counted in *ret_failed, and does not keep the others from being thawed. */
int reconcile_thaw_all(const struct cgroup_root *root, const struct layout *layout,
                       struct store *store, unsigned *ret_thawed, unsigned *ret_failed,
                       struct error *error) MUST_CHECK;
