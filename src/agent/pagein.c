#include "agent/pagein.h"

#include <fcntl.h>
#include <string.h>

#include "agent/cgroup.h"
#include "agent/pages.h"
#include "common/loop.h"

/* Mappings and ranges of one pod, 24 bytes each: the kernel's own default is 65530 mappings for a
 * process, a Node process has about 700. */
#define PLAN_MAX 65536

/* A larger mapping is a reservation (sanitizers, Go, Java) and is not looked through: without
 * PAGEMAP_SCAN 64 GiB take a quarter of a second. */
#define MAPPING_MAX ((uint64_t)64 << 30)

/* Bytes of one call. Adapts to what the device does in a fraction of a step: the call holds the
 * process's mmap lock, and its requests stand before the app's own in the device's queue. */
#define CALL_MIN   ((uint64_t)256 << 10)
#define CALL_FIRST ((uint64_t)1 << 20)
#define CALL_MAX   ((uint64_t)4 << 20)

/* How much is charged, and how long it may take, between two looks at the limits: a look takes as
 * long as asking for some dozens of pages, and the margins below the limits are larger. */
#define LOOK_BYTES ((uint64_t)4 << 20)
#define LOOK_USEC  (50 * USEC_PER_MSEC)

/* One by one and waiting for each. */
#define TOUCH_MAX ((uint64_t)64 << 10)

/* The kernel reads at most one read-ahead window for a range (mm/readahead.c, 128 KiB unless
 * somebody set it lower). */
#define FILE_PIECE ((uint64_t)128 << 10)

/* Read in vain rather than asked for twice. */
#define FILE_GAP ((uint64_t)64 << 10)

/* File pages of one fetch. They are charged to us; a Node process has 30 MiB of its own mapped. */
#define FILE_MAX ((uint64_t)64 << 20)

const char *const pagein_end_names[] = {
    [PAGEIN_DONE] = "done",       [PAGEIN_MEMORY_LOW] = "memory_low", [PAGEIN_LIMIT] = "limit",
    [PAGEIN_STOPPED] = "stopped", [PAGEIN_HIDDEN] = "hidden",         [PAGEIN_FAILED] = "failed",
    [PAGEIN_ENDS_N] = NULL,
};

/* In which order it is brought in. What must be waited for comes after what only has to be asked
 * for, and would be held up by it. */
enum rank { RANK_KNOWN, RANK_KNOWN_WRITTEN, RANK_STACK, RANK_HEAP, RANK_REST, RANK_WRITTEN };

enum how {
    HOW_ASK,   /* what is in swap of anonymous memory */
    HOW_TOUCH, /* what is in swap of a private file mapping */
    HOW_READ,  /* all of it, from a file or from shared memory */
    HOW_NOTE,  /* only look what is present */
};

struct item {
    uint64_t start, end;
    uint16_t process;
    uint8_t rank; /* enum rank */
    uint8_t how;  /* enum how */
    bool known;   /* only what is in the known set; else only what is not */
};

struct pagein {
    struct pagein_config config;
    struct workset known, noted;
    struct pagein_result result;

    pid_t *pids;
    unsigned n_pids, planned; /* processes whose mappings are in the plan */
    bool listed;

    struct item *items;
    unsigned n_items, room;
    unsigned next;   /* item */
    uint64_t cursor; /* within it; 0: at its start */
    uint64_t call;   /* bytes */

    struct process process; /* the one that is open */
    int open;               /* its index; -1: none */
    uint64_t left;          /* bytes that may be charged before limits are looked at again */
    uint64_t looked_usec;   /* when that was */
    int16_t *known_of;      /* by process: its index in `known`; -1: none */
    int fds[];
};

/* ---- open and close ---- */

static int copy_fds(struct pagein *pagein, const struct pagein_config *config)
{
    pagein->config.n_fds = 0;
    pagein->config.pod_fd = -1;
    pagein->config.fds = pagein->fds;
    for (unsigned i = 0; i < config->n_fds; i++) {
        if (config->fds[i] < 0) /* a container that is gone */
            continue;
        int fd = fcntl(config->fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
        pagein->fds[pagein->config.n_fds++] = fd;
    }
    if (config->pod_fd >= 0)
        pagein->config.pod_fd = fcntl(config->pod_fd, F_DUPFD_CLOEXEC, 3);
    return config->pod_fd >= 0 && pagein->config.pod_fd < 0 ? -errno : 0;
}

int pagein_open(struct pagein **ret, const struct pagein_config *config, struct error *error)
{
    struct pagein *pagein = calloc(1, sizeof *pagein + config->n_fds * sizeof pagein->fds[0]);

    if (!pagein)
        return error_set(error, ENOMEM, "walk a pod's memory");
    pagein->config = *config;
    pagein->call = CALL_FIRST;
    pagein->open = -1;
    pagein->process = (struct process){ .pidfd = -1, .pagemap_fd = -1 };
    int r = copy_fds(pagein, config);
    pagein->pids = calloc(WORKSET_PROCESSES_MAX, sizeof pagein->pids[0]);
    pagein->known_of = calloc(WORKSET_PROCESSES_MAX, sizeof pagein->known_of[0]);
    if (r == 0 && (!pagein->pids || !pagein->known_of))
        r = -ENOMEM;
    if (r < 0) {
        pagein_close(pagein);
        return error_set(error, -r, "walk a pod's memory");
    }
    *ret = pagein;
    return 0;
}

struct pagein *pagein_close(struct pagein *pagein)
{
    if (!pagein)
        return NULL;
    for (unsigned i = 0; i < pagein->config.n_fds; i++)
        close_fd(pagein->fds[i]);
    close_fd(pagein->config.pod_fd);
    process_close(&pagein->process);
    workset_clear(&pagein->known);
    workset_clear(&pagein->noted);
    free(pagein->items);
    free(pagein->known_of);
    free(pagein->pids);
    free(pagein);
    return NULL;
}

void pagein_know(struct pagein *pagein, struct workset *set)
{
    workset_clear(&pagein->known);
    pagein->known = *set;
    *set = (struct workset){ 0 };
}

const struct pagein_result *pagein_result(const struct pagein *pagein)
{
    return &pagein->result;
}

void pagein_take_noted(struct pagein *pagein, struct workset *ret)
{
    workset_seal(&pagein->noted);
    *ret = pagein->noted;
    pagein->noted = (struct workset){ 0 };
}

/* ---- the plan ---- */

static int by_pid(const void *a, const void *b)
{
    pid_t left = *(const pid_t *)a, right = *(const pid_t *)b;

    return (left > right) - (left < right);
}

/* In the order of their PIDs: mostly that of their start. */
static void list_processes(struct pagein *pagein)
{
    for (unsigned i = 0; i < pagein->config.n_fds; i++)
        pagein->n_pids += cgroup_list_pids(pagein->fds[i], pagein->pids + pagein->n_pids,
                                           WORKSET_PROCESSES_MAX - pagein->n_pids);
    qsort(pagein->pids, pagein->n_pids, sizeof pagein->pids[0], by_pid);
    pagein->listed = true;
    if (pagein->n_pids && pagein->pids[0] <= 0)
        pagein->result.end = PAGEIN_HIDDEN;
}

static bool grow_plan(struct pagein *pagein)
{
    unsigned room = pagein->room ? pagein->room * 2 : 1024;
    struct item *grown =
        room > PLAN_MAX ? NULL : reallocarray(pagein->items, room, sizeof *pagein->items);

    if (!grown)
        return false;
    pagein->items = grown;
    pagein->room = room;
    return true;
}

/* What does not fit into the plan is left to the app. */
static void plan(struct pagein *pagein, const struct mapping *mapping, enum rank rank, enum how how,
                 bool known)
{
    uint64_t start, end;

    if (how != HOW_NOTE && !workset_run(&pagein->known, pagein->known_of[pagein->planned], known,
                                        mapping->start, mapping->end, &start, &end))
        return;
    if (pagein->n_items == pagein->room && !grow_plan(pagein))
        return;
    pagein->items[pagein->n_items++] = (struct item){ .start = mapping->start,
                                                      .end = mapping->end,
                                                      .process = (uint16_t)pagein->planned,
                                                      .rank = rank,
                                                      .how = how,
                                                      .known = known };
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Plans what is known of a mapping and, after it, the rest. */
static void plan_both(struct pagein *pagein, const struct mapping *mapping, enum rank known,
                      enum rank rest, enum how how)
{
    plan(pagein, mapping, known, how, true);
    plan(pagein, mapping, rest, how, false);
}

static void plan_fetch(struct pagein *pagein, const struct mapping *mapping)
{
    switch (mapping->kind) {
    case MAPPING_STACK:
        plan_both(pagein, mapping, RANK_KNOWN, RANK_STACK, HOW_ASK);
        break;
    case MAPPING_HEAP:
        plan_both(pagein, mapping, RANK_KNOWN, RANK_HEAP, HOW_ASK);
        break;
    case MAPPING_ANON:
        plan_both(pagein, mapping, RANK_KNOWN, RANK_REST, HOW_ASK);
        break;
    case MAPPING_FILE:
        plan(pagein, mapping, RANK_KNOWN, HOW_READ, true);
        plan_both(pagein, mapping, RANK_KNOWN_WRITTEN, RANK_WRITTEN, HOW_TOUCH);
        break;
    case MAPPING_SHARED:
        plan(pagein, mapping, RANK_KNOWN, HOW_READ, true);
        if (pagein->known_of[pagein->planned] < 0)
            plan(pagein, mapping, RANK_REST, HOW_READ, false);
        break;
    }
}

static void plan_note(struct pagein *pagein, const struct mapping *mapping)
{
    bool is_file = mapping->kind == MAPPING_FILE || mapping->kind == MAPPING_SHARED;
    enum rank rank = mapping->kind == MAPPING_STACK ? RANK_STACK : is_file ? RANK_HEAP : RANK_REST;

    if (is_file || pagein->config.task == PAGEIN_NOTE_ALL)
        plan(pagein, mapping, rank, HOW_NOTE, false);
}

static int plan_mapping(const struct mapping *mapping, void *userdata)
{
    struct pagein *pagein = userdata;

    if (mapping->end - mapping->start > MAPPING_MAX)
        return 0;
    if (pagein->config.task == PAGEIN_FETCH)
        plan_fetch(pagein, mapping);
    else
        plan_note(pagein, mapping);
    return 0;
}

static int by_rank(const void *a, const void *b)
{
    const struct item *left = a, *right = b;

    if (left->rank != right->rank)
        return left->rank < right->rank ? -1 : 1;
    if (left->process != right->process)
        return left->process < right->process ? -1 : 1;
    return (left->start > right->start) - (left->start < right->start);
}

/* A process that has exited, or was never ours to see, is none. */
static bool is_harmless(int r)
{
    return r == -ESRCH || r == -ENOENT;
}

static bool fail(struct pagein *pagein, int r, const char *what)
{
    pagein->result.end = PAGEIN_FAILED;
    if (pagein->result.error.err == 0)
        error_set(&pagein->result.error, -r, "%s", what);
    return false;
}

static bool plan_process(struct pagein *pagein)
{
    struct process process;
    pid_t pid = pagein->pids[pagein->planned];
    int r = process_open(&process, pid, &pagein->result.error);

    if (r == 0) {
        pagein->known_of[pagein->planned] =
            (int16_t)workset_find(&pagein->known, pid, process.started);
        r = process_for_each_mapping(&process, plan_mapping, pagein, &pagein->result.error);
        process_close(&process);
    }
    if (r < 0 && !is_harmless(r))
        return fail(pagein, r, "read a process's mappings");
    pagein->result.error = ERROR_INIT;
    pagein->planned++;
    return true;
}

/* True when the plan is complete or gets on; false when it cannot be made. */
static bool make_plan(struct pagein *pagein, uint64_t deadline)
{
    if (!pagein->listed)
        list_processes(pagein);
    if (pagein->result.end != PAGEIN_DONE)
        return false;
    while (pagein->planned < pagein->n_pids && loop_now_usec() < deadline)
        if (!plan_process(pagein))
            return false;
    if (pagein->planned == pagein->n_pids && pagein->n_items)
        qsort(pagein->items, pagein->n_items, sizeof pagein->items[0], by_rank);
    return true;
}

/* ---- bounds ---- */

/* How much may be charged now; 0 and the reason when nothing may be. */
static uint64_t look_at_limits(struct pagein *pagein)
{
    struct kernfile_meminfo info;
    uint64_t room = KERNFILE_MAX, floor = pagein->config.memory_floor;

    if (kernfile_read_meminfo(&info) < 0 || info.mem_available <= floor + CALL_MIN) {
        pagein->result.end = PAGEIN_MEMORY_LOW;
        return 0;
    }
    for (unsigned i = 0; i < pagein->config.n_fds; i++)
        room = min_u64(room, cgroup_room(pagein->fds[i]));
    if (pagein->config.pod_fd >= 0)
        room = min_u64(room, cgroup_own_room(pagein->config.pod_fd));
    if (room < CALL_MIN) {
        pagein->result.end = PAGEIN_LIMIT;
        return 0;
    }
    pagein->looked_usec = loop_now_usec();
    return min_u64(LOOK_BYTES, min_u64(room, info.mem_available - floor));
}

/* May anything be charged? */
static bool has_room(struct pagein *pagein)
{
    if (pagein->config.task != PAGEIN_FETCH)
        pagein->left = KERNFILE_MAX;
    else if (pagein->left < CALL_MIN || loop_now_usec() - pagein->looked_usec > LOOK_USEC)
        pagein->left = look_at_limits(pagein);
    return pagein->left > 0;
}

/* ---- the work ---- */

/* Has it exited, or has another taken its PID? Then its items are passed over. */
static int open_process(struct pagein *pagein, const struct item *item)
{
    if (pagein->open == item->process)
        return 0;
    process_close(&pagein->process);
    pagein->open = -1;
    int r = process_open(&pagein->process, pagein->pids[item->process], &pagein->result.error);
    if (r == 0)
        pagein->open = item->process;
    return r;
}

/* Of what was found in swap, takes what is known; what there is no room for is found again. */
static unsigned select_known(struct pagein *pagein, const struct item *item,
                             const struct iovec *found, unsigned n_found, struct iovec *ranges)
{
    unsigned n = 0;

    for (unsigned i = 0; i < n_found; i++) {
        uint64_t at = (uint64_t)(uintptr_t)found[i].iov_base, end = at + found[i].iov_len, start;
        while (workset_run(&pagein->known, pagein->known_of[item->process], true, at, end, &start,
                           &at)) {
            if (n == PAGES_RANGES_MAX) {
                pagein->cursor = start;
                return n;
            }
            ranges[n++] = (struct iovec){ (void *)(uintptr_t)start, at - start };
        }
    }
    return n;
}

/* Without what is known: that was asked for before. */
static uint64_t count_unknown(const struct pagein *pagein, const struct item *item,
                              const struct iovec *found, unsigned n_found)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n_found; i++) {
        uint64_t at = (uint64_t)(uintptr_t)found[i].iov_base, end = at + found[i].iov_len, start;
        while (workset_run(&pagein->known, pagein->known_of[item->process], false, at, end, &start,
                           &at))
            sum += at - start;
    }
    return sum;
}

/* Brings in what is in swap, by asking for it or by touching it. To ask again for the known pages
 * between others costs less than to leave them out: a range costs more than a page. */
static int swap_in(struct pagein *pagein, const struct item *item, uint64_t bytes)
{
    struct iovec found[PAGES_RANGES_MAX], known[PAGES_RANGES_MAX];
    struct iovec *ranges = item->known ? known : found;
    int n = process_scan(&pagein->process, PAGE_SWAPPED, &pagein->cursor, item->end, found,
                         PAGES_RANGES_MAX, bytes);

    if (n <= 0)
        return n;
    unsigned n_ranges = (unsigned)n;
    if (item->known)
        n_ranges = select_known(pagein, item, found, n_ranges, known);
    uint64_t sum =
        item->known ? pages_sum(known, n_ranges) : count_unknown(pagein, item, found, n_ranges);
    pagein->result.swapped_in += sum;
    pagein->left -= min_u64(pagein->left, sum);
    return item->how == HOW_TOUCH ? process_touch(&pagein->process, ranges, n_ranges)
                                  : process_ask(&pagein->process, ranges, n_ranges);
}

/* The next range to read; near ones are one. */
static bool next_to_read(struct pagein *pagein, const struct item *item, uint64_t *ret_start,
                         uint64_t *ret_end)
{
    const struct workset *known = &pagein->known;
    int process = pagein->known_of[item->process];
    uint64_t start, end;

    if (!workset_run(known, process, item->known, pagein->cursor, item->end, ret_start, ret_end))
        return false;
    while (*ret_end - *ret_start < FILE_PIECE &&
           workset_run(known, process, item->known, *ret_end, item->end, &start, &end) &&
           start - *ret_end <= FILE_GAP)
        *ret_end = end;
    if (*ret_end - *ret_start > FILE_PIECE)
        *ret_end = *ret_start + FILE_PIECE;
    return true;
}

static int read_file(struct pagein *pagein, const struct item *item, uint64_t bytes)
{
    struct iovec ranges[CALL_MAX / FILE_PIECE];
    uint64_t sum = 0, start, end;
    unsigned n = 0;
    bool more = pagein->result.file_read < FILE_MAX;

    while (more && sum < bytes && n < ARRAY_SIZE(ranges) &&
           (more = next_to_read(pagein, item, &start, &end))) {
        ranges[n++] = (struct iovec){ (void *)(uintptr_t)start, end - start };
        sum += end - start;
        pagein->cursor = end;
    }
    if (!more)
        pagein->cursor = item->end;
    pagein->result.file_read += sum;
    pagein->left -= min_u64(pagein->left, sum);
    return process_ask(&pagein->process, ranges, n);
}

static int note(struct pagein *pagein, const struct item *item)
{
    struct iovec found[PAGES_RANGES_MAX];
    int n = process_scan(&pagein->process, PAGE_PRESENT, &pagein->cursor, item->end, found,
                         PAGES_RANGES_MAX, UINT64_MAX);

    if (n <= 0)
        return n;
    int process = workset_add_process(&pagein->noted, pagein->process.pid, pagein->process.started);
    for (int i = 0; i < n && process >= 0; i++) {
        uint64_t start = (uint64_t)(uintptr_t)found[i].iov_base;
        if (!workset_add(&pagein->noted, process, start, start + found[i].iov_len))
            process = -1;
    }
    return process < 0 ? -ENOMEM : 0;
}

static int do_call(struct pagein *pagein, const struct item *item)
{
    uint64_t bytes = min_u64(pagein->call, pagein->left);

    switch ((enum how)item->how) {
    case HOW_ASK:
        return swap_in(pagein, item, bytes);
    case HOW_TOUCH:
        return swap_in(pagein, item, min_u64(bytes, TOUCH_MAX));
    case HOW_READ:
        return read_file(pagein, item, bytes);
    case HOW_NOTE:
        return note(pagein, item);
    }
    return 0;
}

static void adapt_call(struct pagein *pagein, uint64_t usec)
{
    if (usec > 2 * PAGEIN_STEP_USEC)
        pagein->call = max_u64(pagein->call / 2, CALL_MIN);
    else if (usec < PAGEIN_STEP_USEC / 2)
        pagein->call = min_u64(pagein->call * 2, CALL_MAX);
}

static void next_item(struct pagein *pagein)
{
    pagein->next++;
    pagein->cursor = 0;
}

static void skip_process(struct pagein *pagein)
{
    unsigned process = pagein->items[pagein->next].process;

    while (pagein->next < pagein->n_items && pagein->items[pagein->next].process == process)
        next_item(pagein);
}

/* One call for the item that is next. */
static bool work_on_item(struct pagein *pagein)
{
    const struct item *item = &pagein->items[pagein->next];
    uint64_t before = pagein->result.swapped_in + pagein->result.file_read;
    uint64_t start = loop_now_usec();

    if (pagein->cursor == 0)
        pagein->cursor = item->start;
    int r = open_process(pagein, item);
    if (r == 0)
        r = do_call(pagein, item);
    if (is_harmless(r)) {
        pagein->result.error = ERROR_INIT;
        skip_process(pagein);
        return true;
    }
    if (r < 0)
        return fail(pagein, r, "bring in a process's pages");
    if (pagein->result.swapped_in + pagein->result.file_read - before >= pagein->call)
        adapt_call(pagein, loop_now_usec() - start);
    if (pagein->cursor >= item->end)
        next_item(pagein);
    return true;
}

static bool work(struct pagein *pagein, uint64_t deadline)
{
    while (pagein->next < pagein->n_items && loop_now_usec() < deadline)
        if (!has_room(pagein) || !work_on_item(pagein))
            return false;
    return pagein->next < pagein->n_items;
}

bool pagein_step(struct pagein *pagein)
{
    uint64_t deadline = loop_now_usec() + PAGEIN_STEP_USEC;

    if (!pagein->listed || pagein->planned < pagein->n_pids) {
        if (!make_plan(pagein, deadline))
            return false;
        if (pagein->planned < pagein->n_pids)
            return true;
    }
    return work(pagein, deadline);
}
