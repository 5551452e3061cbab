/* How much memory can still be allocated; callable from anywhere, a signal handler included. */
#ifndef VRANGE_HEADROOM_IN_SIGNAL_H
#define VRANGE_HEADROOM_IN_SIGNAL_H

#include <stdint.h>

#include "exported.h"

/* Bytes that can still be allocated before the tightest limit, minus a margin that callers should not use.
 * Negative if usage has reached into the margin. The limits are those of all cgroups, RLIMIT_AS,
 * RLIMIT_DATA, vm.overcommit_memory=2 and the machine. Exact only below `enough`. Async-signal-safe. */
int64_t headroom_in_signal(int64_t enough) EXPORTED(headroom_in_signal);

#endif
