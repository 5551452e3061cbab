/* Reads a value that another process has: in the child of a fork, what was cached before. */
#ifndef VRANGE_CACHE_READ_AWAY_H
#define VRANGE_CACHE_READ_AWAY_H

#include "python/support.h"

#include <stdbool.h>

/* The value, decoded from a copy of the first `bytes` of a range that is away. NULL with an error set, or
 * without one if *is_lost. May run Python; other threads may run meanwhile. */
PyObject *read_away(uint64_t handle, Py_ssize_t bytes, PyObject *form, bool is_text, bool *is_lost);

#endif
