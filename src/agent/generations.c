#include "agent/generations.h"

#include <uthash.h>

#include "agent/limits.h"

struct seen {
    UT_hash_handle hh;
    uint64_t generation;
    char uid[POD_UID_SIZE];
};

struct generations {
    struct seen *table; /* in the order of the last sight */
    unsigned capacity;
};

int generations_open(struct generations **ret, unsigned capacity, struct error *error)
{
    struct generations *generations = calloc(1, sizeof *generations);

    if (!generations)
        return error_set(error, ENOMEM, "open the table of generations");
    generations->capacity = capacity;
    *ret = generations;
    return 0;
}

struct generations *generations_close(struct generations *generations)
{
    struct seen *seen, *next;

    if (generations)
        HASH_ITER(hh, generations->table, seen, next)
        {
            HASH_DEL(generations->table, seen);
            free(seen);
        }
    free(generations);
    return NULL;
}

static struct seen *find(const struct generations *generations, const char *uid)
{
    struct seen *seen;

    HASH_FIND_STR(generations->table, uid, seen);
    return seen;
}

uint64_t generations_get(const struct generations *generations, const char *uid)
{
    const struct seen *seen = find(generations, uid);

    return seen ? seen->generation : 0;
}

/* The one to write into: the pod's own, or a new one, or the oldest when the table is full. */
static struct seen *take(struct generations *generations, const char *uid)
{
    struct seen *seen = find(generations, uid);

    if (!seen && HASH_COUNT(generations->table) >= generations->capacity)
        seen = generations->table;
    if (seen)
        HASH_DEL(generations->table, seen);
    else
        seen = calloc(1, sizeof *seen);
    return seen;
}

void generations_see(struct generations *generations, const char *uid, uint64_t generation)
{
    struct seen *seen = generation ? take(generations, uid) : NULL;

    if (!seen)
        return;
    if (strcmp(seen->uid, uid) != 0) {
        snprintf(seen->uid, sizeof seen->uid, "%s", uid);
        seen->generation = 0;
    }
    if (generation > seen->generation)
        seen->generation = generation;
    HASH_ADD_STR(generations->table, uid, seen);
}
