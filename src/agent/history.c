#include "agent/history.h"

#include <stdbool.h>

#include <uthash.h>

#include "agent/limits.h"

struct seen {
    UT_hash_handle hh;
    uint64_t generation;
    uint64_t first_wake_usec; /* of the minute that is counted */
    unsigned wakes;
    char uid[POD_UID_SIZE];
};

struct history {
    struct seen *table; /* in the order of the last sight */
    unsigned capacity;
};

int history_open(struct history **ret, unsigned capacity, struct error *error)
{
    struct history *history = calloc(1, sizeof *history);

    if (!history)
        return error_set(error, ENOMEM, "open the history of pods");
    history->capacity = capacity;
    *ret = history;
    return 0;
}

struct history *history_close(struct history *history)
{
    struct seen *seen, *next;

    if (history)
        HASH_ITER(hh, history->table, seen, next)
        {
            HASH_DEL(history->table, seen);
            free(seen);
        }
    free(history);
    return NULL;
}

static struct seen *find(const struct history *history, const char *uid)
{
    struct seen *seen;

    HASH_FIND_STR(history->table, uid, seen);
    return seen;
}

uint64_t history_generation(const struct history *history, const char *uid)
{
    const struct seen *seen = find(history, uid);

    return seen ? seen->generation : 0;
}

/* The one to write into: the pod's own, or a new one, or the oldest when the table is full. It is
 * the newest from now on. NULL without memory. */
static struct seen *see(struct history *history, const char *uid)
{
    struct seen *seen = find(history, uid);
    bool known = seen;

    if (!seen && HASH_COUNT(history->table) >= history->capacity)
        seen = history->table;
    if (seen)
        HASH_DEL(history->table, seen);
    else
        seen = malloc(sizeof *seen);
    if (!seen)
        return NULL;
    if (!known) {
        *seen = (struct seen){ 0 };
        snprintf(seen->uid, sizeof seen->uid, "%s", uid);
    }
    HASH_ADD_STR(history->table, uid, seen);
    return seen;
}

void history_see_generation(struct history *history, const char *uid, uint64_t generation)
{
    struct seen *seen = generation ? see(history, uid) : NULL;

    if (seen && generation > seen->generation)
        seen->generation = generation;
}

static bool is_over(const struct seen *seen, uint64_t now_usec)
{
    return now_usec - seen->first_wake_usec >= 60 * USEC_PER_SEC;
}

void history_count_wake(struct history *history, const char *uid, uint64_t now_usec)
{
    struct seen *seen = see(history, uid);

    if (!seen)
        return;
    if (seen->wakes == 0 || is_over(seen, now_usec)) {
        seen->wakes = 0;
        seen->first_wake_usec = now_usec;
    }
    seen->wakes++;
}

unsigned history_wakes(const struct history *history, const char *uid, uint64_t now_usec)
{
    const struct seen *seen = find(history, uid);

    return seen && !is_over(seen, now_usec) ? seen->wakes : 0;
}
