/* Stalls (PSI): how long tasks waited for memory. */
#ifndef VRANGE_STALLS_H
#define VRANGE_STALLS_H

#include <stdint.h>

#include "os/os_kept_descriptors.h"
#include "pressure/memory_limits.h"

#define STALLS_OF_NOTHING INT32_MIN

typedef struct {
    os_kept machine;
    uint64_t since_ns, since_us; /* where the window began */
    int of;                      /* the place that it is of, or STALLS_OF_NOTHING */
    unsigned looks;
} stalls;

/* Opens the machine's file, if the kernel has one. */
void stalls_open(stalls *s);
void stalls_close(stalls *s);

/* Returns the share of about the last second in which some task waited for memory, in the cgroup of this index
 * or, if that is negative or does not report it, on the machine; 0 while it is unknown. `before` is what the
 * last look returned. */
double stalls_share(stalls *s, limits *l, int place, double before);

#endif
