/* A door in the way of a worker thread: closed, it holds whoever comes, and a test can wait until
 * so many stand before it. With one, "while the record is being written" is a fact and no guess. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
    unsigned waiting;
    unsigned passed; /* since it was made */
};

#define GATE_INIT                                                                                  \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                     \
    }

void gate_close(struct gate *gate);
void gate_open(struct gate *gate);

/* On the thread that is to be held. */
void gate_pass(struct gate *gate);

/* Waits until `n` stand before it; ends the program when they do not come. */
void gate_await(struct gate *gate, unsigned n);
