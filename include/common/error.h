/* An error that carries its sentence.
 *
 * Two kinds of failure, never mixed. A function that takes a `struct error *` returns
 *   0          done; the error is untouched,
 *   negative   -errno: something is broken; the sentence says what. Forward it, log it once at the
 *              boundary,
 *   positive   a documented outcome of that module (FREEZER_E_BUSY, …) which the caller must
 *              handle; the sentence says what, too.
 *
 * The struct lives on the caller's stack, is never allocated and may be NULL where nobody will read
 * it. The sentence is made where the facts are and grows at the front on the way up:
 * "freeze pod 1234: write memory.swap.max: Permission denied". */
#pragma once

#include "common/util.h"

#define ERROR_MSG_SIZE 256

struct error {
    int err; /* errno value, 0 when the outcome has none */
    char msg[ERROR_MSG_SIZE];
};

#define ERROR_INIT ((struct error){ 0 })

/* Sets the sentence and appends ": strerror(err)" when err is not 0. err is a positive errno.
 * Returns -err (or -EIO when err is 0, so that a failure is never a success by accident). */
int error_set(struct error *error, int err, const char *fmt, ...) PRINTF(3, 4);

/* Sets the sentence of a documented outcome and returns it. Also for a -errno whose own words would
 * add nothing ("--threads: 0 is not 1 to 64" and not "…: Invalid argument"). */
int error_outcome(struct error *error, int outcome, const char *fmt, ...) PRINTF(3, 4);

/* Puts "what: " in front of the sentence; returns r, so that one can `return error_wrap(…)`. */
int error_wrap(struct error *error, int r, const char *fmt, ...) PRINTF(3, 4);
