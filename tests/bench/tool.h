/* What the bench's programs share: the clock, and the conversation with the driver, one line for
 * each command. */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 4096

/* CLOCK_MONOTONIC, which is the same for every process, so that a moment seen by the app can be
 * compared with one seen by its caller. */
static inline uint64_t now_nsec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The rig is broken: no figure is better than a wrong one. */
_Noreturn static inline void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* The next command without its newline; NULL at the end. */
static inline char *next_command(char line[static LINE_SIZE])
{
    if (!fgets(line, LINE_SIZE, stdin))
        return NULL;
    line[strcspn(line, "\n")] = '\0';
    return line;
}

static inline void answer(uint64_t start, uint64_t end, unsigned status, size_t bytes)
{
    printf("%" PRIu64 " %" PRIu64 " %u %zu\n", start, end, status, bytes);
    fflush(stdout);
}
