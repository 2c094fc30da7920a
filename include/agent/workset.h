/* What a pod's processes had in memory at some moment: ranges of addresses by process.
 *
 * Bounded: near ranges are joined, and when there are too many, ranges that are less near are, so
 * that a set gets coarser and not incomplete. A table keeps one set a pod, by UID, and lets the one
 * that was used longest ago fall out. A value object and a table without a lock: one thread at a
 * time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/limits.h"
#include "common/error.h"

/* 64 KiB a pod at most; Node with a dev server has 300 to 900 ranges. */
#define WORKSET_RANGES_MAX 4096

/* A pod with more processes has the rest left alone; systemd in a container runs about 40. */
#define WORKSET_PROCESSES_MAX 256

/* Pods whose set is kept: 32 MiB if all were as large as they can be, in practice 4. */
#define WORKSET_TABLE_MAX 512

struct workset_range {
    uint64_t start;   /* a page's number */
    uint32_t n_pages; /* 16 TiB */
    uint32_t process; /* index into processes */
};

struct workset_process {
    pid_t pid;
    uint64_t started; /* as in struct process */
};

struct workset {
    struct workset_process *processes;
    struct workset_range *ranges; /* ascending by process and address */
    unsigned n_processes, n_ranges, room;
    unsigned gap; /* pages between two ranges that are joined */
};

/* What is added afterwards belongs to this process. False: no memory, or too many. */
bool workset_begin_process(struct workset *set, pid_t pid, uint64_t started) MUST_CHECK;

/* Addresses of whole pages, ascending. */
bool workset_add(struct workset *set, uint64_t start, uint64_t end) MUST_CHECK;

/* The index of a process; -1 when it is not in the set. */
int workset_find(const struct workset *set, pid_t pid, uint64_t started);

/* The first range of a process that ends after `address`, or NULL: its addresses in *ret_start and
 * *ret_end. */
bool workset_next(const struct workset *set, int process, uint64_t address, uint64_t *ret_start,
                  uint64_t *ret_end);

bool workset_copy(struct workset *ret, const struct workset *set) MUST_CHECK;
void workset_clear(struct workset *set);

struct workset_table;

int workset_table_open(struct workset_table **ret, unsigned capacity,
                       struct error *error) MUST_CHECK;
struct workset_table *workset_table_close(struct workset_table *table);

/* NULL: none is known. Valid until the table is changed. */
const struct workset *workset_table_get(const struct workset_table *table, const char *uid);

/* Takes the set's content, whether or not it can be kept. */
void workset_table_put(struct workset_table *table, const char *uid, struct workset *set);
void workset_table_forget(struct workset_table *table, const char *uid);
