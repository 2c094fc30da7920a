/* Files that survive a power cut, and files that are read whole.
 *
 * All of these block (fsync): call them from a worker, or before the loop runs. Directories are
 * given as fds, so that a caller decides once which directory it means. Names are single path
 * components; a symbolic link is never followed (O_NOFOLLOW; -ELOOP). The directory's fd is open
 * for reading, not O_PATH, for fsync(2). */
#pragma once

#include "common/error.h"

/* A name that starts with this is a temporary file of ours that a crash left behind. */
#define FILE_TEMP_PREFIX ".tmp-"

/* Replaces `name`: temporary file, write, fsync, rename, fsync of the directory. Either the old
 * content or the new one is there at any instant. Mode 0600. On failure the temporary is removed.
 * One call at a time for each name: two would write the same temporary. */
int file_replace(int dir_fd, const char *name, const void *data, size_t len,
                 struct error *error) MUST_CHECK;

/* Unlinks and makes that durable. A file that is not there is success. */
int file_remove(int dir_fd, const char *name, struct error *error) MUST_CHECK;

/* Reads the whole file into memory that the caller frees; a NUL follows the last byte. Larger than
 * `max` bytes: -EFBIG. Not a regular file: -EINVAL. */
int file_read(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_len,
              struct error *error) MUST_CHECK;

/* Removes what file_replace left behind in a crash. */
int file_remove_temporaries(int dir_fd, struct error *error) MUST_CHECK;
