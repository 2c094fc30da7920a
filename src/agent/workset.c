#include "agent/workset.h"

#include <uthash.h>

#define BLOCK_PAGES 64
#define ROOM_FIRST  64
#define PLACE_BITS  48

static uint64_t page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- a set ---- */

int workset_find(const struct workset *set, pid_t pid, uint64_t started)
{
    for (unsigned i = 0; i < set->n_processes; i++)
        if (set->processes[i].pid == pid && set->processes[i].started == started)
            return (int)i;
    return -1;
}

int workset_add_process(struct workset *set, pid_t pid, uint64_t started)
{
    int found = workset_find(set, pid, started);

    if (found >= 0 || set->n_processes == WORKSET_PROCESSES_MAX)
        return found;
    struct workset_process *grown =
        reallocarray(set->processes, set->n_processes + 1, sizeof *grown);
    if (!grown)
        return -1;
    set->processes = grown;
    grown[set->n_processes] = (struct workset_process){ .pid = pid, .started = started };
    return (int)set->n_processes++;
}

static uint64_t place_of(int process, uint64_t page)
{
    return (uint64_t)process << PLACE_BITS | page / BLOCK_PAGES;
}

static bool make_room(struct workset *set)
{
    if (set->n_blocks < set->room)
        return true;
    unsigned room = set->room ? set->room * 2 : ROOM_FIRST;
    struct workset_block *grown = reallocarray(set->blocks, room, sizeof *grown);
    if (!grown)
        return false;
    set->blocks = grown;
    set->room = room;
    return true;
}

static bool add_to_block(struct workset *set, uint64_t place, uint64_t pages)
{
    if (set->n_blocks && set->blocks[set->n_blocks - 1].place == place) {
        set->blocks[set->n_blocks - 1].pages |= pages;
        return true;
    }
    if (set->n_blocks == WORKSET_BLOCKS_MAX)
        return true;
    if (!make_room(set))
        return false;
    set->blocks[set->n_blocks++] = (struct workset_block){ place, pages };
    return true;
}

/* The bits from the n-th on. */
static uint64_t bits_from(uint64_t n)
{
    return UINT64_MAX << n;
}

bool workset_add(struct workset *set, int process, uint64_t start, uint64_t end)
{
    uint64_t page = start / page_size(), last = end / page_size();

    while (page < last) {
        uint64_t next = (page / BLOCK_PAGES + 1) * BLOCK_PAGES;
        uint64_t pages = bits_from(page % BLOCK_PAGES);
        if (last < next)
            pages &= ~bits_from(last % BLOCK_PAGES);
        if (!add_to_block(set, place_of(process, page), pages))
            return false;
        page = next;
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct workset_block *left = a, *right = b;

    return (left->place > right->place) - (left->place < right->place);
}

void workset_seal(struct workset *set)
{
    unsigned kept = 0;

    if (set->n_blocks == 0)
        return;
    qsort(set->blocks, set->n_blocks, sizeof set->blocks[0], by_place);
    for (unsigned i = 1; i < set->n_blocks; i++) {
        if (set->blocks[i].place == set->blocks[kept].place)
            set->blocks[kept].pages |= set->blocks[i].pages;
        else
            set->blocks[++kept] = set->blocks[i];
    }
    set->n_blocks = kept + 1;
}

/* The first block at `place` or after it; NULL when there is none. */
static const struct workset_block *find_block(const struct workset *set, uint64_t place)
{
    unsigned low = 0, high = set->n_blocks;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (set->blocks[middle].place < place)
            low = middle + 1;
        else
            high = middle;
    }
    return low < set->n_blocks ? &set->blocks[low] : NULL;
}

/* The first page from `page` on that is in the set, or that is not; `last` when there is none. */
static uint64_t next_page(const struct workset *set, int process, bool inside, uint64_t page,
                          uint64_t last)
{
    while (page < last) {
        uint64_t place = place_of(process, page);
        const struct workset_block *block = find_block(set, place);
        if (block && block->place == place) {
            uint64_t pages = inside ? block->pages : ~block->pages;
            uint64_t found = pages & bits_from(page % BLOCK_PAGES);
            page -= page % BLOCK_PAGES;
            if (found)
                return page + (uint64_t)__builtin_ctzll(found);
            page += BLOCK_PAGES;
        } else if (!inside) {
            return page;
        } else {
            bool same = block && block->place >> PLACE_BITS == (uint64_t)process;
            page = same ? (block->place & ~bits_from(PLACE_BITS)) * BLOCK_PAGES : last;
        }
    }
    return last;
}

bool workset_run(const struct workset *set, int process, bool inside, uint64_t at, uint64_t end,
                 uint64_t *ret_start, uint64_t *ret_end)
{
    uint64_t size = page_size(), first = at / size, last = end / size, stop = last;

    if (process < 0 && inside)
        return false;
    if (process >= 0) {
        first = next_page(set, process, inside, first, last);
        stop = next_page(set, process, !inside, first, last);
    }
    if (first >= last)
        return false;
    *ret_start = first * size;
    *ret_end = (stop < last ? stop : last) * size;
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
    copy.blocks = copy_of(set->blocks, set->n_blocks, sizeof set->blocks[0]);
    copy.room = set->n_blocks;
    if (!copy.processes || !copy.blocks) {
        workset_clear(&copy);
        return false;
    }
    *ret = copy;
    return true;
}

void workset_clear(struct workset *set)
{
    free(set->processes);
    free(set->blocks);
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
    struct workset_block *trimmed =
        set->n_blocks ? reallocarray(set->blocks, set->n_blocks, sizeof *trimmed) : NULL;

    if (trimmed) {
        set->blocks = trimmed;
        set->room = set->n_blocks;
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
