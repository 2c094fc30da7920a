/* A FAKE of what a kernel does with the files of cgroups, over a tree of plain files.
 *
 * The agent's writes come in through the linker (fake_calls.h); a test plays somebody else with
 * fake_write. Either way
 *   - each file then holds exactly what a kernel would print, without the tail of what was longer,
 *   - "frozen 1" in cgroup.events follows cgroup.freeze, down the tree,
 *   - memory.reclaim moves bytes from memory.current to memory.swap.current, and says EAGAIN when
 *     there were too few,
 * and what a test asked for goes wrong. inotify needs no fake: the files are written. There are no
 * tasks, no accounting, and a tree is removed whether it is empty or not.
 *
 * One tree at a time, and one journal of what the agent has written. Paths are relative to the
 * tree's root. Whatever fails here ends the program. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gate.h"

/* `root` is a directory that exists. Without memory no group has a file memory.*. */
void fake_start(const char *root, bool with_memory);
void fake_stop(void);

/* ---- the tree ---- */

/* Makes a group with a process in it, and the groups above it that are missing. */
void fake_group(const char *path, const char *swap_max, uint64_t memory);
void fake_remove(const char *path);
/* Another group takes the name: same files, another inode. */
void fake_replace(const char *path);

/* What the file says now; in a buffer of the fake's, good for the next eight calls. "" without. */
const char *fake_read(const char *path, const char *file);
/* As a write by somebody else: the kernel's reaction included. */
void fake_write(const char *path, const char *file, const char *text);
/* Puts this there, whatever the kernel would say. Makes the file. */
void fake_put(const char *path, const char *file, const char *text);
void fake_populate(const char *path, bool populated);

/* ---- what goes wrong ---- */

/* The next `times` (0: all) writes of the agent to this file fail. `path` NULL: of any group. */
void fake_refuse(const char *path, const char *file, int err, unsigned times);
/* cgroup.freeze takes a 1, cgroup.events stays at "frozen 0". */
void fake_never_freezes(const char *path);
/* "frozen 1" outlasts cgroup.freeze = 0, as it does until the first task has run. */
void fake_lingers(const char *path);
/* So much of the group's memory stays where it is. */
void fake_keeps(const char *path, uint64_t bytes);
/* memory.reclaim says that all is done, and does nothing. */
void fake_pretends(const char *path);
/* None of the above any more; what lingered is gone. */
void fake_behave(void);

/* Every write of memory.reclaim passes it, on its worker. */
extern struct gate fake_reclaim_gate;

/* ---- the agent's records (fake_calls.h) ---- */

/* Every write or removal of a record passes it, on its worker. */
extern struct gate fake_disk_gate;

enum fake_disk_call { FAKE_DISK_PUT, FAKE_DISK_REMOVE };
/* The next `times` (0: all) fail. */
void fake_disk_refuse(enum fake_disk_call call, int err, unsigned times);

/* ---- the journal ----
 *
 * One line for each write that the agent made and each record that it put or removed, in the order
 * of their ends: "<group>/<file>=<text>", "put <name>", "remove <name>"; what failed has " !" at
 * its end. */

void fake_journal_clear(void);
unsigned fake_journal_count(const char *part); /* lines that hold this; "" for all */
/* Index of the first and of the last such line; ends the program when there is none. */
unsigned fake_journal_first(const char *part);
unsigned fake_journal_last(const char *part);
void fake_journal_print(void);

/* ---- for fake_calls.h ---- */

ssize_t fake_kernel_write(int fd, const void *data, size_t len);
/* 0 or -errno. */
int fake_disk_enter(enum fake_disk_call call);
void fake_disk_leave(enum fake_disk_call call, const char *name, int r);
