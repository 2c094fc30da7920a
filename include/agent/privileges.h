/* What root may do is more than the agent needs: everything else is dropped at the start, before
 * any thread is made, and cannot come back (no_new_privs).
 *
 *   CAP_NET_ADMIN   attach the trigger to a pod's cgroup          trigger
 *   CAP_BPF         load it (5.8)                                 trigger
 *   CAP_SYS_ADMIN   enter a pod's network namespace               trigger (what came before it)
 *   CAP_SYS_PTRACE  open that namespace; read what is swapped     trigger, prefetch
 *   CAP_SYS_NICE    advise the kernel about another's memory      prefetch
 *
 * To freeze, to reclaim and to thaw needs none: the files belong to root, and so does the agent. A
 * feature whose capabilities are missing is off, and says so. Source: capabilities(7). */
#pragma once

#include "common/error.h"

enum privileges_use {
    PRIVILEGES_TRIGGER = 1 << 0,
    PRIVILEGES_PREFETCH = 1 << 1,
};

/* Keeps what the features in `uses` need, as far as the process has it. */
int privileges_drop(unsigned uses, struct error *error) MUST_CHECK;
