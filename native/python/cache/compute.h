/* Compute: a value that is absent is computed and stored. */
#ifndef VRANGE_CACHE_COMPUTE_H
#define VRANGE_CACHE_COMPUTE_H

#include "python/cache/flight.h"

/* Returns the cached value, the value of another caller's computation, or the function's result, which it
 * stores. `kwargs` may be NULL. Steals the references to key, args and kwargs. May run Python. */
PyObject *core_answer(cache_core *self, PyObject *key, key_hash hash, PyObject *function, PyObject *args,
                      PyObject *kwargs);

/* Counts a computation and its time. */
void count_regenerated(const flight *f, uint64_t took_ns);

#endif
