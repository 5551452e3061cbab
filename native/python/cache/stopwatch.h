/* How long a computation took, and what it cost. */
#ifndef VRANGE_CACHE_STOPWATCH_H
#define VRANGE_CACHE_STOPWATCH_H

#include "python/support.h"

#include <stdint.h>

typedef struct {
    uint64_t started_ns, cpu_ns, waits;
} stopwatch;

typedef struct {
    uint64_t passed_ns, cost_ns;
} time_taken;

/* Both must be called by the same thread. */
stopwatch stopwatch_start(void);
time_taken stopwatch_read(const stopwatch *watch);

int stopwatch_add_type(PyObject *module);

#endif
