/* What is remembered of a pod whether it is frozen or not: the highest generation that was seen, as
 * a fence against a caller that was delayed, and how often packets woke it in the last minute.
 *
 * Bounded: the pod that was not heard of for longest falls out. Not durable beyond the record:
 * after a restart of the agent only pods that are frozen are fenced. */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct history;

int history_open(struct history **ret, unsigned capacity, struct error *error) MUST_CHECK;
struct history *history_close(struct history *history);

/* 0 when none was seen. */
uint64_t history_generation(const struct history *history, const char *uid);

/* Remembers the higher of the two. 0 and lack of memory change nothing. */
void history_see_generation(struct history *history, const char *uid, uint64_t generation);

/* A packet woke the pod at this time (CLOCK_MONOTONIC). */
void history_count_wake(struct history *history, const char *uid, uint64_t now_usec);

/* How often that happened in the minute that began with the first of them. */
unsigned history_wakes(const struct history *history, const char *uid, uint64_t now_usec);
