/* The highest generation that was seen for each pod, as a fence against a caller that was delayed.
 *
 * Kept for pods that run, too, and bounded: the pod that was not heard of for longest falls out.
 * Not durable beyond the record: after a restart of the agent only pods that are frozen are fenced.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct generations;

int generations_open(struct generations **ret, unsigned capacity, struct error *error) MUST_CHECK;
struct generations *generations_close(struct generations *generations);

/* 0 when none was seen. */
uint64_t generations_get(const struct generations *generations, const char *uid);

/* Remembers the higher of the two. 0 and lack of memory change nothing. */
void generations_see(struct generations *generations, const char *uid, uint64_t generation);
