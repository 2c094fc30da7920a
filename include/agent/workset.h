/* What a pod's processes had in memory at some moment: pages by process.
 *
 * One bit a page, in blocks of 64 pages. Bounded: what is added after the bound is left out. A
 * table keeps one set a pod, by UID, and lets the one that was put longest ago fall out. A value
 * object and a table without a lock: one thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/limits.h"
#include "common/error.h"

/* 64 KiB a pod at most: 1 GiB when it lies close together. Node with a dev server has about 1000.
 */
#define WORKSET_BLOCKS_MAX 4096

/* A pod with more processes has the rest left alone; systemd in a container runs about 40. */
#define WORKSET_PROCESSES_MAX 256

/* Pods whose set is kept: 32 MiB if all were as large as they can be, in practice 8. */
#define WORKSET_TABLE_MAX 512

struct workset_block {
    uint64_t place; /* process (16 bits), address in blocks (48 bits) */
    uint64_t pages; /* the lowest bit is the first page */
};

struct workset_process {
    pid_t pid;
    uint64_t started; /* as in struct process */
};

struct workset {
    struct workset_process *processes;
    struct workset_block *blocks;
    unsigned n_processes, n_blocks, room;
};

/* The index of a process; -1 when it is not in the set. */
int workset_find(const struct workset *set, pid_t pid, uint64_t started);

/* The same, added when it is not there. -1: no memory, or too many. */
int workset_add_process(struct workset *set, pid_t pid, uint64_t started);

/* Addresses of whole pages, in any order. False: no memory. */
bool workset_add(struct workset *set, int process, uint64_t start, uint64_t end) MUST_CHECK;

/* After the last addition and before the first question. */
void workset_seal(struct workset *set);

/* The next run of pages, from `at` on and before `end`, that are in the set (`inside`), or that are
 * not. Process -1 has none in it. False: there is none. */
bool workset_run(const struct workset *set, int process, bool inside, uint64_t at, uint64_t end,
                 uint64_t *ret_start, uint64_t *ret_end);

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
