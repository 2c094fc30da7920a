/* Parsers of kernel files: pure functions over text that was read whole. They compare whole keys,
 * accept nothing that the kernel would not print, and never read past `text`'s NUL.
 *
 * Sources: Documentation/admin-guide/cgroup-v2.rst (flat keyed files, "max"),
 * Documentation/filesystems/proc.rst (/proc/meminfo). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"

/* The value "max" of a limit. */
#define KERNFILE_MAX UINT64_MAX

/* cgroup.events: "populated 0|1", "frozen 0|1". */
struct kernfile_events {
    bool populated;
    bool frozen;
};

/* /proc/meminfo, in bytes. */
struct kernfile_meminfo {
    uint64_t mem_total;
    uint64_t mem_available;
    uint64_t swap_total;
    uint64_t swap_free;
};

/* All return 0 or -EBADMSG. */
int kernfile_parse_events(const char *text, struct kernfile_events *ret) MUST_CHECK;
int kernfile_parse_value(const char *text, uint64_t *ret) MUST_CHECK; /* number or "max" */
int kernfile_parse_meminfo(const char *text, struct kernfile_meminfo *ret) MUST_CHECK;

/* The same from /proc/meminfo itself. */
int kernfile_read_meminfo(struct kernfile_meminfo *ret) MUST_CHECK;

/* The number after `key` in a flat keyed file (memory.stat, cpu.stat). -ENOENT: no such key. */
int kernfile_parse_key(const char *text, const char *key, uint64_t *ret) MUST_CHECK;

/* Is `word` one of the space-separated words (cgroup.controllers)? */
bool kernfile_has_word(const char *text, const char *word);
