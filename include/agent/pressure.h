/* Tells when the node runs short of memory: pressure stall information, a trigger on
 * /proc/pressure/memory (Documentation/accounting/psi.rst). What was only put off is then done.
 *
 * Tasks that wait for memory for 150 ms within a second are the sign; the kernel tells at most once
 * a second. */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"

struct pressure;

/* -ENOENT, -EOPNOTSUPP: this kernel has no pressure stall information; -EACCES: not for us. */
int pressure_open(struct pressure **ret, sd_event *event, void (*on_pressure)(void *userdata),
                  void *userdata, struct error *error) MUST_CHECK;
struct pressure *pressure_close(struct pressure *pressure);
