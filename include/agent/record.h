/* The durable note about one frozen pod: as a struct, and as text.
 *
 * Text: one line of JSON, then one line with a checksum of the first (FNV-1a, 64 bits, in hex), so
 * that a record that was cut short or damaged is known as such. A record says whom it is about: pod
 * UID, container id, the inode of each group, the boot. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/limits.h"
#include "common/error.h"

#define RECORD_VERSION 1

/* When the freeze request returns and whether memory is pushed out. */
enum reclaim_mode { RECLAIM_WAIT, RECLAIM_BACKGROUND, RECLAIM_OFF };
extern const char *const reclaim_mode_names[]; /* NULL-terminated */

/* Which packets wake the pod. */
enum wake_on { WAKE_ON_REQUEST, WAKE_ON_CONNECT, WAKE_ON_DATA, WAKE_ON_NONE };
extern const char *const wake_on_names[];

/* A container's group, or one below it. */
struct record_group {
    char path[256];               /* relative to the container's group, "" for that itself */
    uint64_t inode;               /* a group made anew has another */
    char swap_max[SWAP_MAX_SIZE]; /* the original; "" where there is no such file */
};

struct record_container {
    char id[CONTAINER_ID_SIZE];
    char *cgroup;                /* owned; relative to the cgroup root, below CGROUP_PATH_SIZE */
    uint64_t memory_before;      /* bytes; 0 without a memory controller */
    struct record_group *groups; /* owned; the first is the container's own */
    unsigned n_groups;
};

struct record {
    char pod_uid[POD_UID_SIZE];
    char boot_id[40];
    char group[GROUP_SIZE]; /* "" for none */
    uint64_t generation;    /* 0 for none */
    enum reclaim_mode reclaim;
    uint64_t reclaim_after; /* seconds, with RECLAIM_BACKGROUND */
    enum wake_on wake_on;
    uint64_t frozen_at_usec;             /* CLOCK_REALTIME */
    struct record_container *containers; /* owned */
    unsigned n_containers;
};

/* Frees what is inside. */
void record_clear(struct record *record);

/* Room for one more, zeroed; NULL without memory. */
struct record_container *record_add_container(struct record *record);
struct record_group *record_add_group(struct record_container *container);

/* The caller frees *ret. */
int record_encode(const struct record *record, char **ret, size_t *ret_len,
                  struct error *error) MUST_CHECK;

enum record_outcome {
    RECORD_E_CORRUPT = 1, /* cut short, damaged, or not ours */
    RECORD_E_VERSION,     /* whole, but of another version */
};

/* Fills *ret (to be cleared by the caller on success only). */
int record_decode(const char *text, size_t len, struct record *ret, struct error *error) MUST_CHECK;

/* This boot's id, /proc/sys/kernel/random/boot_id (Documentation/admin-guide/sysctl/kernel.rst). */
int record_boot_id(char ret[static 40], struct error *error) MUST_CHECK;
