/* A process's memory from outside: its mappings, which pages of them are in RAM or in swap, and
 * asking the kernel to bring pages in. Stateless system calls for a worker; all of them may block.
 *
 * Needs CAP_SYS_PTRACE (the maps and page map of others) and CAP_SYS_NICE (process_madvise since
 * 5.12), and a /proc of the PID namespace in which the PIDs are known.
 *
 * A process that has exited is -ESRCH everywhere. Sources: proc(5), process_madvise(2),
 * Documentation/admin-guide/mm/pagemap.rst. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/error.h"

struct process {
    pid_t pid;
    int pidfd;
    int pagemap_fd;
    uint64_t started; /* clock ticks since boot: with the PID it names a process for good */
};

enum mapping_kind {
    MAPPING_STACK, /* the first thread's */
    MAPPING_HEAP,  /* brk's */
    MAPPING_ANON,
    MAPPING_FILE,   /* pages that a private one has written to are anonymous */
    MAPPING_SHARED, /* shared memory: the page map does not tell what of it is in swap */
};

struct mapping {
    uint64_t start, end; /* addresses, whole pages */
    enum mapping_kind kind;
};

enum page_state { PAGE_SWAPPED, PAGE_PRESENT };

/* Ranges of one call; IOV_MAX is 1024, and 512 of them are 8 KiB of stack. */
#define PAGES_RANGES_MAX 512

/* 0 when this kernel and our capabilities suffice for all of this module. */
int pages_probe(struct error *error) MUST_CHECK;

int process_open(struct process *ret, pid_t pid, struct error *error) MUST_CHECK;
void process_close(struct process *process);

/* Calls back for each mapping that can be read and holds ordinary pages, in ascending order; a
 * non-zero return value ends the walk and is returned. */
int process_for_each_mapping(const struct process *process,
                             int (*callback)(const struct mapping *mapping, void *userdata),
                             void *userdata, struct error *error) MUST_CHECK;

/* Finds runs of pages in `state` from *cursor on: at most `n` runs and `max_bytes` (a page or more)
 * of them. *cursor is then where to go on, `end` at last; a call looks at a bounded part of the
 * address space, so that 0 runs do not mean the end. Returns the number of runs. */
int process_scan(const struct process *process, enum page_state state, uint64_t *cursor,
                 uint64_t end, struct iovec *ranges, unsigned n, uint64_t max_bytes) MUST_CHECK;

/* Starts reading what of the ranges is in swap (anonymous and shared memory) or in a file. Ranges
 * that are no longer mapped are skipped. */
int process_ask(const struct process *process, struct iovec *ranges, unsigned n) MUST_CHECK;

/* Faults every page of the ranges in, one after the other: for pages that process_ask cannot reach,
 * the written ones of private file mappings. */
int process_touch(const struct process *process, const struct iovec *ranges, unsigned n) MUST_CHECK;

uint64_t pages_sum(const struct iovec *ranges, unsigned n);
