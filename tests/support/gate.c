#include "gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PATIENCE_SEC 20

void gate_close(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->closed = true;
    pthread_mutex_unlock(&gate->lock);
}

void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->closed = false;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->waiting++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->closed)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->waiting--;
    gate->passed++;
    pthread_mutex_unlock(&gate->lock);
}

void gate_await(struct gate *gate, unsigned n)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_SEC;
    pthread_mutex_lock(&gate->lock);
    while (gate->waiting < n && r == 0)
        r = pthread_cond_timedwait(&gate->changed, &gate->lock, &until);
    pthread_mutex_unlock(&gate->lock);
    if (r == 0)
        return;
    fprintf(stderr, "gate: %u did not come\n", n);
    abort();
}
