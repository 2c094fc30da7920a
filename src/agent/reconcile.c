#include "agent/reconcile.h"

#include <string.h>

#include "agent/transition.h"
#include "common/log.h"

const char *const reconcile_result_names[] = {
    [RECONCILE_ADOPTED] = "adopted",       [RECONCILE_ROLLED_BACK] = "rolled_back",
    [RECONCILE_OTHER_BOOT] = "other_boot", [RECONCILE_GONE] = "gone",
    [RECONCILE_CORRUPT] = "corrupt",       [RECONCILE_OTHER_VERSION] = "other_version",
    [RECONCILE_FAILED] = "failed"
};

static_assert(ARRAY_SIZE(reconcile_result_names) == RECONCILE_RESULTS_N, "every result has a name");

struct pass {
    struct freezer *freezer;
    const struct freezer_config *config;
    struct reconcile_counts counts;
    char boot_id[40];
};

/* ---- a record that cannot be understood ---- */

/* Nobody knows the originals any more, but the app must run. */
static int thaw_blindly(const struct layout *layout, const char *uid, struct error *error)
{
    struct pod_cgroups cgroups = { .pod_fd = -1 };
    int r = pod_discover(&cgroups, layout, uid, error);

    if (r == 0)
        r = pod_thaw(&cgroups, error);
    pod_clear(&cgroups);
    if (r == POD_E_CHANGED)
        return -EAGAIN;
    return r < 0 ? r : 0; /* what we would not freeze we did not freeze */
}

static enum reconcile_result set_aside(struct store *store, const struct layout *layout,
                                       const char *uid, int outcome, const struct error *why)
{
    struct error error = ERROR_INIT;

    if (thaw_blindly(layout, uid, &error) < 0) {
        log_error_with(FIELDS({ "POD", uid }), "%s, and to thaw the pod failed: %s", why->msg,
                       error.msg);
        return RECONCILE_FAILED;
    }
    log_error_with(FIELDS({ "POD", uid }),
                   "%s; the pod was thawed, its memory.swap.max stays as it is, the record is kept "
                   "as %s.json.unreadable",
                   why->msg, uid);
    if (store_set_aside(store, uid, &error) < 0)
        log_error_with(FIELDS({ "POD", uid }), "%s, ignoring", error.msg);
    return outcome == RECORD_E_VERSION ? RECONCILE_OTHER_VERSION : RECONCILE_CORRUPT;
}

/* ---- a record of this boot ---- */

static enum reconcile_result drop(struct store *store, const char *uid,
                                  enum reconcile_result result, const char *why)
{
    struct error error = ERROR_INIT;

    log_info_with(FIELDS({ "POD", uid }), "%s: record dropped", why);
    if (store_remove(store, uid, &error) < 0)
        log_error_with(FIELDS({ "POD", uid }), "%s, ignoring", error.msg);
    return result;
}

static enum reconcile_result roll_back(struct pod *pod, const char *why)
{
    log_warning_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }), "%s: rolled back", why);
    transition_leave(pod, THAW_ROLLBACK, 0, NULL);
    return RECONCILE_ROLLED_BACK;
}

static enum reconcile_result adopt(struct pod *pod)
{
    pod->adopted = true;
    waker_prepare(pod);
    waker_attach(pod);
    transition_resume(pod);
    if (pod->state == POD_THAWING)
        return RECONCILE_ROLLED_BACK; /* a container has started meanwhile */
    log_debug_with(FIELDS({ "POD", pod->cgroups.record.pod_uid }), "adopted");
    return RECONCILE_ADOPTED;
}

/* Groups without processes: what starts in them next must not be born frozen. */
static void thaw_leftovers(const struct pod_cgroups *cgroups)
{
    struct error error = ERROR_INIT;

    if (pod_thaw(cgroups, &error) < 0 || pod_restore_swap(cgroups, &error) < 0)
        log_error_with(FIELDS({ "POD", cgroups->record.pod_uid }), "%s, ignoring", error.msg);
}

static enum reconcile_result settle(struct pass *pass, struct pod_cgroups *cgroups,
                                    const struct pod_truth *truth)
{
    unsigned expected = cgroups->record.n_containers;

    if (truth->present == 0) {
        thaw_leftovers(cgroups);
        return drop(pass->config->store, cgroups->record.pod_uid, RECONCILE_GONE,
                    "no container is left");
    }
    struct pod *pod = freezer_insert(pass->freezer, cgroups);
    if (!pod)
        return RECONCILE_FAILED;
    pod->touched = true;
    pod->state = POD_FROZEN;
    if (truth->present < expected)
        return roll_back(pod, "a container is gone");
    if (truth->requested < expected)
        return roll_back(pod, "a freeze or a thaw was half done");
    return adopt(pod);
}

static enum reconcile_result resume(struct pass *pass, const char *uid, struct record *record)
{
    struct error error = ERROR_INIT;
    struct pod_cgroups cgroups;
    struct pod_truth truth;
    enum reconcile_result result = RECONCILE_FAILED;

    int r = pod_open_recorded(&cgroups, pass->config->root, pass->config->layout, record, &error);
    if (r == 0) {
        r = pod_read_truth(&cgroups, &truth, &error);
        if (r == 0)
            result = settle(pass, &cgroups, &truth);
        pod_clear(&cgroups);
    }
    if (r < 0)
        log_error_with(FIELDS({ "POD", uid }), "%s; the record is left as it is", error.msg);
    return result;
}

static enum reconcile_result reconcile_one(struct pass *pass, const char *uid)
{
    struct record record = { 0 };
    struct error error = ERROR_INIT;
    int r = store_get(pass->config->store, uid, &record, &error);

    if (r > 0)
        return set_aside(pass->config->store, pass->config->layout, uid, r, &error);
    if (r < 0) {
        log_error_with(FIELDS({ "POD", uid }), "%s; the record is left as it is", error.msg);
        return RECONCILE_FAILED;
    }
    enum reconcile_result result =
        strcmp(record.boot_id, pass->boot_id) == 0
            ? resume(pass, uid, &record)
            : drop(pass->config->store, uid, RECONCILE_OTHER_BOOT, "the node was rebooted");
    record_clear(&record);
    return result;
}

static int reconcile_record(const char *uid, void *userdata)
{
    struct pass *pass = userdata;
    enum reconcile_result result = reconcile_one(pass, uid);

    /* What passes by itself must not leave a pod frozen until the next start. */
    if (result == RECONCILE_FAILED)
        result = reconcile_one(pass, uid);
    pass->counts.n[result]++;
    metrics_add(pass->config->metrics, STAT_RECONCILED, result, 1);
    return 0;
}

int reconcile(struct freezer *freezer, struct reconcile_counts *ret, struct error *error)
{
    struct pass pass = { .freezer = freezer, .config = freezer_config(freezer) };
    int r = record_boot_id(pass.boot_id, error);

    if (r == 0)
        r = store_for_each(pass.config->store, reconcile_record, &pass, error);
    *ret = pass.counts;
    return r;
}

/* ---- leaving for good ---- */

struct thaw_pass {
    const struct cgroup_root *root;
    const struct layout *layout;
    struct store *store;
    unsigned thawed, failed;
};

static int thaw_recorded(struct thaw_pass *pass, struct record *record, struct error *error)
{
    struct pod_cgroups cgroups;
    int r = pod_open_recorded(&cgroups, pass->root, pass->layout, record, error);

    if (r < 0)
        return r;
    r = pod_thaw(&cgroups, error);
    if (r == 0)
        r = pod_restore_swap(&cgroups, error);
    if (r == 0)
        r = store_remove(pass->store, cgroups.record.pod_uid, error);
    pod_clear(&cgroups);
    return r;
}

static int thaw_one(const char *uid, void *userdata)
{
    struct thaw_pass *pass = userdata;
    struct record record = { 0 };
    struct error error = ERROR_INIT;
    int r = store_get(pass->store, uid, &record, &error);

    if (r > 0) {
        r = set_aside(pass->store, pass->layout, uid, r, &error) == RECONCILE_FAILED ? -EIO : 0;
    } else if (r == 0) {
        r = thaw_recorded(pass, &record, &error);
        record_clear(&record);
    }
    if (r < 0) {
        pass->failed++;
        log_error_with(FIELDS({ "POD", uid }), "%s", error.msg);
        return 0;
    }
    pass->thawed++;
    return 0;
}

int reconcile_thaw_all(const struct cgroup_root *root, const struct layout *layout,
                       struct store *store, unsigned *ret_thawed, unsigned *ret_failed,
                       struct error *error)
{
    struct thaw_pass pass = { .root = root, .layout = layout, .store = store };
    int r = store_for_each(store, thaw_one, &pass, error);

    *ret_thawed = pass.thawed;
    *ret_failed = pass.failed;
    return r;
}
