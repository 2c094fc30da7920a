/* The state directory: one file a record. The only module that opens anything in it.
 *
 * The default is below /run: a record is worth nothing after a reboot (cgroups are gone, the boot
 * id differs), and a tmpfs can neither be slow nor be worn out. All functions but the two that open
 * block (fsync): call them from a worker.
 *
 * What cannot be understood is set aside under another name, never deleted. */
#pragma once

#include "agent/record.h"

struct store;

enum store_flags {
    STORE_SHARED = 1 << 0, /* do not ask for the lock (--thaw-all beside a running agent) */
};

/* Makes the directory (0700) when it is not there, removes temporaries of a crash, takes the lock:
 * a second agent on the same directory is -EBUSY. A directory that cannot be written is no failure
 * here: records in it must still be readable, so that what is frozen can be thawed. */
int store_open(struct store **ret, const char *path, int flags, struct error *error) MUST_CHECK;
struct store *store_close(struct store *store);

int store_put(struct store *store, const struct record *record, struct error *error) MUST_CHECK;
int store_put_text(struct store *store, const char *uid, const char *text, size_t len,
                   struct error *error) MUST_CHECK;

/* A record that is not there is success. */
int store_remove(struct store *store, const char *uid, struct error *error) MUST_CHECK;

/* Renames a record to "<uid>.json.unreadable". */
int store_set_aside(struct store *store, const char *uid, struct error *error) MUST_CHECK;

/* 0, RECORD_E_CORRUPT, RECORD_E_VERSION, -ENOENT, or another errno. */
int store_get(struct store *store, const char *uid, struct record *ret,
              struct error *error) MUST_CHECK;

/* Calls back with the UID of each record. A return value other than 0 ends it and is returned.
 * The callback may remove records. */
int store_for_each(struct store *store, int (*callback)(const char *uid, void *userdata),
                   void *userdata, struct error *error) MUST_CHECK;

/* Writes and removes a file: can a record be written now? */
int store_probe(struct store *store, struct error *error) MUST_CHECK;
