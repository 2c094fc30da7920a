/* Every bound of the agent in one place, each with its reason. */
#pragma once

/* A pod UID is a UUID (36) or the 32 hex digits of a static pod; 63 leaves room for neither more.
 */
#define POD_UID_SIZE 64

/* Callers group pods by namespace (63 characters, RFC 1123 label) or namespace/name. */
#define GROUP_SIZE 129

/* A container id is 64 hex digits; a scope's name puts a runtime's prefix before it. */
#define CONTAINER_ID_SIZE 128

/* Path below the cgroup root: kind in docker in a slice stays below 400; the kernel's PATH_MAX is
 * far above what a kubelet makes. */
#define CGROUP_PATH_SIZE 1024

/* "18446744073709551615" and "max" with room. */
#define SWAP_MAX_SIZE 24

/* Containers of one pod. A pod with more is refused: freezing them one after the other on the loop
 * thread would take longer than a millisecond. */
#define POD_CONTAINERS_MAX 32

/* Groups below one container (systemd or docker in it nest some dozens). */
#define CONTAINER_GROUPS_MAX 128

/* Depth of these. */
#define CONTAINER_DEPTH_MAX 8

/* Pods under our care at once. The kubelet's own default is 110 a node, the largest tested 500. */
#define PODS_MAX 4096

/* Requests that wait for one pod. A caller retries on 503. */
#define POD_WAITERS_MAX 32

/* Pods whose generation and wakes are remembered, thawed ones too: about 1 MiB. */
#define HISTORY_MAX 8192

/* Events kept for a reader that comes back: about 400 KiB. */
#define EVENTS_MAX 1024

/* Record of a pod with 32 containers of 128 groups with long names is below this. */
#define RECORD_SIZE_MAX (4u << 20)

/* Body of a request: the longest valid one is about 500 bytes. */
#define BODY_SIZE_MAX 4096

/* Connections of one listener; the oldest silent one makes room. */
#define CONNECTIONS_MAX     512
#define CONNECTION_IDLE_SEC 10
#define STREAMS_MAX         64

/* The longest that reclaim can be put off: a week, in seconds. */
#define RECLAIM_AFTER_MAX (7 * 24 * 3600)

/* A freeze that waits for its reclaim is answered with what is known after this. */
#define RECLAIM_WAIT_USEC (600 * USEC_PER_SEC)

/* The answer to a thaw waits this long for the record to be removed; the app runs before that. */
#define THAW_ANSWER_USEC (50 * USEC_PER_MSEC)

/* Roots that can hold pods ("kubepods", "kubepods.slice", one per nested kubelet), and how far they
 * are searched for: docker/<id>/kubelet.slice/kubelet-kubepods.slice is the deepest known. */
#define LAYOUT_ROOTS_MAX  64
#define LAYOUT_DEPTH_MAX  4
#define LAYOUT_SEARCH_MAX 1024 /* directories opened: about 5 ms in the worst case */

/* Writes of memory.swap.max = max against somebody who sets it back, per container and freeze. */
#define DRIFT_HEALS_MAX 16

/* What a prefetch leaves free below a group's memory.high or memory.max, for what the app allocates
 * in the meantime: a sixteenth, and at least what one step can charge twice over. */
#define CHARGE_MARGIN_SHARE 16
#define CHARGE_MARGIN_MIN   ((uint64_t)16 << 20)
