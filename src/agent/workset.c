#include "agent/workset.h"

#include <uthash.h>

/* Sixteen pages are what the kernel maps around a fault in a file, and what costs one disk request
 * more than nothing to read in vain. */
#define GAP_FIRST 16
#define ROOM_STEP 64

static uint64_t page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- a set ---- */

bool workset_begin_process(struct workset *set, pid_t pid, uint64_t started)
{
    if (set->n_processes == WORKSET_PROCESSES_MAX)
        return false;
    struct workset_process *grown =
        reallocarray(set->processes, set->n_processes + 1, sizeof *grown);
    if (!grown)
        return false;
    set->processes = grown;
    grown[set->n_processes++] = (struct workset_process){ .pid = pid, .started = started };
    return true;
}

/* Joins `next` to `last` when little lies between them. */
static bool join(struct workset_range *last, const struct workset_range *next, unsigned gap)
{
    if (last->process != next->process || next->start > last->start + last->n_pages + gap)
        return false;
    last->n_pages = (uint32_t)(next->start + next->n_pages - last->start);
    return true;
}

/* Joins ranges that are ever less near until there is room. */
static void coarsen(struct workset *set)
{
    while (set->n_ranges > WORKSET_RANGES_MAX / 2 && set->gap < UINT32_MAX / 2) {
        unsigned kept = 0;
        set->gap *= 2;
        for (unsigned i = 1; i < set->n_ranges; i++)
            if (!join(&set->ranges[kept], &set->ranges[i], set->gap))
                set->ranges[++kept] = set->ranges[i];
        set->n_ranges = kept + 1;
    }
}

static bool make_room(struct workset *set)
{
    if (set->n_ranges == WORKSET_RANGES_MAX)
        coarsen(set);
    if (set->n_ranges < set->room)
        return true;
    unsigned room = set->room ? set->room * 2 : ROOM_STEP;
    struct workset_range *grown = reallocarray(set->ranges, room, sizeof *grown);
    if (!grown)
        return false;
    set->ranges = grown;
    set->room = room;
    return true;
}

bool workset_add(struct workset *set, uint64_t start, uint64_t end)
{
    uint64_t size = page_size();
    struct workset_range range = { .start = start / size,
                                   .n_pages = (uint32_t)((end - start) / size),
                                   .process = set->n_processes - 1 };

    if (set->gap == 0)
        set->gap = GAP_FIRST;
    if (set->n_ranges && join(&set->ranges[set->n_ranges - 1], &range, set->gap))
        return true;
    if (!make_room(set))
        return false;
    set->ranges[set->n_ranges++] = range;
    return true;
}

int workset_find(const struct workset *set, pid_t pid, uint64_t started)
{
    for (unsigned i = 0; i < set->n_processes; i++)
        if (set->processes[i].pid == pid && set->processes[i].started == started)
            return (int)i;
    return -1;
}

/* Does the range lie before that place, ascending by process and address? */
static bool lies_before(const struct workset_range *range, unsigned process, uint64_t page)
{
    if (range->process != process)
        return range->process < process;
    return range->start + range->n_pages <= page;
}

bool workset_next(const struct workset *set, int process, uint64_t address, uint64_t *ret_start,
                  uint64_t *ret_end)
{
    uint64_t size = page_size();
    unsigned low = 0, high = process < 0 ? 0 : set->n_ranges;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (lies_before(&set->ranges[middle], (unsigned)process, address / size))
            low = middle + 1;
        else
            high = middle;
    }
    if (process < 0 || low == set->n_ranges || set->ranges[low].process != (unsigned)process)
        return false;
    *ret_start = set->ranges[low].start * size;
    *ret_end = *ret_start + set->ranges[low].n_pages * size;
    return true;
}

static void *copy_of(const void *data, size_t n, size_t size)
{
    void *copy = reallocarray(NULL, n ? n : 1, size);

    if (copy && n)
        memcpy(copy, data, n * size);
    return copy;
}

bool workset_copy(struct workset *ret, const struct workset *set)
{
    struct workset copy = *set;

    copy.processes = copy_of(set->processes, set->n_processes, sizeof set->processes[0]);
    copy.ranges = copy_of(set->ranges, set->n_ranges, sizeof set->ranges[0]);
    copy.room = set->n_ranges;
    if (!copy.processes || !copy.ranges) {
        workset_clear(&copy);
        return false;
    }
    *ret = copy;
    return true;
}

void workset_clear(struct workset *set)
{
    free(set->processes);
    free(set->ranges);
    *set = (struct workset){ 0 };
}

/* ---- the table ---- */

struct entry {
    UT_hash_handle hh;
    struct workset set;
    char uid[POD_UID_SIZE];
};

struct workset_table {
    struct entry *entries; /* in the order in which they were put */
    unsigned capacity;
};

int workset_table_open(struct workset_table **ret, unsigned capacity, struct error *error)
{
    struct workset_table *table = calloc(1, sizeof *table);

    if (!table)
        return error_set(error, ENOMEM, "open the table of working sets");
    table->capacity = capacity;
    *ret = table;
    return 0;
}

static void drop(struct workset_table *table, struct entry *entry)
{
    HASH_DEL(table->entries, entry);
    workset_clear(&entry->set);
    free(entry);
}

struct workset_table *workset_table_close(struct workset_table *table)
{
    while (table && table->entries)
        drop(table, table->entries);
    free(table);
    return NULL;
}

const struct workset *workset_table_get(const struct workset_table *table, const char *uid)
{
    const struct entry *entry;

    HASH_FIND_STR(table->entries, uid, entry);
    return entry ? &entry->set : NULL;
}

void workset_table_forget(struct workset_table *table, const char *uid)
{
    struct entry *entry;

    HASH_FIND_STR(table->entries, uid, entry);
    if (entry)
        drop(table, entry);
}

/* What will not grow any more gives back what it does not need. */
static void trim(struct workset *set)
{
    struct workset_range *trimmed =
        set->n_ranges ? reallocarray(set->ranges, set->n_ranges, sizeof *trimmed) : NULL;

    if (trimmed) {
        set->ranges = trimmed;
        set->room = set->n_ranges;
    }
}

void workset_table_put(struct workset_table *table, const char *uid, struct workset *set)
{
    struct entry *entry = calloc(1, sizeof *entry);

    workset_table_forget(table, uid);
    if (!entry) {
        workset_clear(set);
        return;
    }
    if (HASH_COUNT(table->entries) >= table->capacity)
        drop(table, table->entries);
    trim(set);
    entry->set = *set;
    *set = (struct workset){ 0 };
    snprintf(entry->uid, sizeof entry->uid, "%s", uid);
    HASH_ADD_STR(table->entries, uid, entry);
}
