/* A pod's status as JSON, read from its cgroups at the moment of asking. */
#pragma once

#include <jansson.h>

#include "agent/freezer.h"

/* Of a pod in the table. NULL without memory. */
json_t *status_of(const struct pod *pod);

/* Of a pod that we know nothing of but its cgroups: `state` is what these say, and a pod that
 * somebody else froze has "foreign": true. */
json_t *status_of_cgroups(const struct pod_cgroups *cgroups);
