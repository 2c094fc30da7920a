/* The memory of a frozen pod: out to swap, and in again. Private to the transitions. */
#pragma once

#include "agent/freezer.h"

/* The pod has just become frozen. Begins to reclaim, or puts it off: then the microseconds until
 * paging_out is due are returned, else 0. */
uint64_t paging_plan(struct pod *pod);

/* Begins now. Who waits for the end is answered at the end. */
void paging_out(struct pod *pod);

/* No further chunk, and no further page in. */
void paging_stop(struct pod *pod);

/* The pod runs again: what was swapped out is asked for, on a worker. A pod that was not reclaimed
 * has its pages. */
void paging_in(struct pod *pod);

/* The pod is gone. */
void paging_forget(struct pod *pod);
