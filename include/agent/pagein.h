/* One pod's walk over its processes' memory, in small steps: to bring back what reclaim took
 * (PAGEIN_FETCH), or to note what is there (PAGEIN_NOTE).
 *
 * A fetch asks for the known working set first, then for the rest of what is in swap: stacks, brk's
 * heap, other memory. Pages that a private file mapping has written to cannot be asked for, only
 * touched, one after the other: known ones after the known set, others last. Of file pages only the
 * known ones are read: nothing else tells what reclaim dropped of them.
 *
 * Anonymous pages are charged to the group that they were swapped out of. Pages of files are
 * charged to us, who read them, and that is why there is a bound for these.
 *
 * Steps are for a worker; between two of them the object may be freed. */
#pragma once

#include "agent/limits.h"
#include "agent/workset.h"

enum pagein_end {
    PAGEIN_DONE,
    PAGEIN_MEMORY_LOW, /* the node's MemAvailable came to the floor */
    PAGEIN_LIMIT,      /* a group came near memory.high or memory.max */
    PAGEIN_STOPPED,    /* by the caller */
    PAGEIN_HIDDEN,     /* the pod's processes are in a PID namespace that we do not see into */
    PAGEIN_FAILED,     /* `error` says why */
    PAGEIN_ENDS_N,
};
extern const char *const pagein_end_names[];

enum pagein_task {
    PAGEIN_FETCH,
    PAGEIN_NOTE_FILES, /* mapped pages of files and shared memory */
    PAGEIN_NOTE_ALL,
};

/* How long a step may take: a removal of the pod, a change of its mappings or another pod's step
 * may have to wait for it. */
#define PAGEIN_STEP_USEC (10 * USEC_PER_MSEC)

struct pagein;

struct pagein_config {
    enum pagein_task task;
    const int *fds; /* the containers' groups; copied */
    unsigned n_fds;
    int pod_fd;            /* of the group above them, for its limits; -1 for none; copied */
    uint64_t memory_floor; /* bytes of MemAvailable */
};

int pagein_open(struct pagein **ret, const struct pagein_config *config,
                struct error *error) MUST_CHECK;
struct pagein *pagein_close(struct pagein *pagein);

/* Gives a fetch the working set to begin with; takes its content. */
void pagein_know(struct pagein *pagein, struct workset *set);

/* Works for about PAGEIN_STEP_USEC. False when there is nothing more to do. */
bool pagein_step(struct pagein *pagein) MUST_CHECK;

struct pagein_result {
    uint64_t swapped_in; /* bytes that were asked for; shared memory counts as file pages */
    uint64_t file_read;  /* bytes that were asked for, some of which may have been there */
    enum pagein_end end;
    struct error error;
};
const struct pagein_result *pagein_result(const struct pagein *pagein);

/* What was noted; the caller takes it. */
void pagein_take_noted(struct pagein *pagein, struct workset *ret);
